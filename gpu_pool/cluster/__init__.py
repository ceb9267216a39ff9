"""Workers on other machines: the daemon's side. The other side of each link is `gpu_pool.agent`."""
