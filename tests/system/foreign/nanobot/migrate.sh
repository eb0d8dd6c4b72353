# What a new version has to change in the session store: so far nothing.
