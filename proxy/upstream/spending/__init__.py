"""What the models cost: a meter by route, model and day, caps on it, and the state file that survives a restart.

A call is paid in two steps: `Purse.pay` reserves an estimate before the call, so that concurrent calls cannot exceed a
cap together, and the payment settles what the provider charged after it.
"""
