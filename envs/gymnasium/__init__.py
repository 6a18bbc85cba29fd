"""Any Gymnasium environments as one vector environment."""
