module serin.dev/testbed/guard

go 1.26.0
