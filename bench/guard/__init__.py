"""Instructions that the hot paths take, counted by callgrind: the same number on a quiet machine and on a busy one."""
