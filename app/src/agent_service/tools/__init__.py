"""What specialists can do: functions that team.yml names, and what surrounds each call of one."""
