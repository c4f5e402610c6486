"""From recorded observations to verdict, owner and known faults. Pure."""
