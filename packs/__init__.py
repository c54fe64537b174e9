"""Industry packs: data only, one folder a pack. `qianmian.packs` reads them, docs/packs.md says how to write one."""
