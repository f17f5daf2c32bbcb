"""What the Foreman works with: his accounts, his files, when to claim and when to go."""
