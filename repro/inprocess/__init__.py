"""In the user's own process: ``repro.find``, ``repro.watch``, ``repro.Guard``. The one room of the host that imports
torch and the kit, and only when one of these is called.
"""
