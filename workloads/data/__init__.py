"""Where clips come from: one config without torch and one module with it per workload."""
