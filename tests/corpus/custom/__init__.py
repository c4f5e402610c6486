"""The custom-code model of the corpus. Both modules are also copied into model folders and loaded from there."""
