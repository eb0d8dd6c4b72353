"""The watchdog's HTTP API: who asks, the routes, the page."""
