"""What can look wrong about a training run, one file per symptom."""
