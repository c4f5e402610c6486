"""One pass watched: modules, operators, source lines, memory."""
