"""Pure decisions: what to ask, whom to serve, whom to dial. Level 3."""
