"""One reader per data set. An `InputError` says what is missing or damaged, where, and what to do."""
