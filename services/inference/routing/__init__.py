"""Which model and which targets a request goes to: the models file, its rules, the order of asking."""
