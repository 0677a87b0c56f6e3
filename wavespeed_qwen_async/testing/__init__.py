"""What users need to test code that is built on this library: an emulator fixture, and a virtual clock."""
