"""What remote stores are reached through: one small contract, a file for each library."""
