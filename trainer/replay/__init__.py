"""The samples in the views that the teacher saw, in the order of the plan."""
