"""What everything else stands on: files, archives, schedules, facts about the machine.

Nothing here knows of experiments. It needs NumPy alone, so that it can travel in a bundle.
"""
