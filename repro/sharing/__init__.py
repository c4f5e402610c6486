"""What others get and give back: filled forms, lint, the newest release, replay."""
