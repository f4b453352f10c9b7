"""The search space: schedules as choices, choices as schedules, space files."""
