"""`cpunorm bench`: how cpunorm stands against other libraries on this machine, losses included.

cases    what is measured: layers of well-known networks, as data
drawn    the same for cases that are drawn, so that nobody tuned for them
peers    who is measured: one registry of libraries, cpunorm among them
runner   how: outputs are checked against float64, then timed turn by turn
accuracy how far from float64 everyone is when values are far from 0
report   what is shown: a progress bar and tables on a terminal, plain lines elsewhere
record   what is kept: the run as JSON
figures  what a kept run says, for those that read it:
  page     one HTML page; page.jinja, filled with `tables` and `plots`
  compare  what changed between two runs

Imports inside this package are relative: `benchmarks/` (asv) loads it from its own working tree under another name,
so that a dashboard's cases don't change with the commit that it measures.
"""
