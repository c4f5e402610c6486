"""One interpreter with its packages: which there are, how it is built, what two of them differ in."""
