"""Virtual time, simulated networks and disks, scripted peers: for our tests and for yours."""
