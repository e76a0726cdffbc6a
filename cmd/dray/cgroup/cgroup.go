// Package cgroup reads the limits of the control group that the process runs in.
package cgroup

import (
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// MemoryLimit returns the memory in bytes that the control group of the process may use, or 0 if
// there is no bound. For nested groups, the result is the least bound among them (Linux,
// Documentation/admin-guide/cgroup-v2.rst, "memory.max", and cgroup-v1/memory.rst). root is the
// root of the file system.
func MemoryLimit(root fs.FS) (least int64) {
	bound := func(file string) {
		text, err := fs.ReadFile(root, file)
		if err != nil {
			return
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64) // fails for "max", which means no bound
		if err == nil && n > 0 && n < 1<<60 && (least == 0 || n < least) {  // in version 1, a huge number means no bound
			least = n
		}
	}
	groups, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(groups)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3) // number, controllers, group
		if len(fields) < 3 {
			continue
		}
		dir, file := "sys/fs/cgroup", "memory.max"
		if slices.Contains(strings.Split(fields[1], ","), "memory") {
			dir, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		} else if fields[1] != "" { // the controllers of version 2 have no names here
			continue
		}
		for group := path.Clean("/" + fields[2]); ; group = path.Dir(group) {
			bound(path.Join(dir, group, file))
			if group == "/" {
				break
			}
		}
	}
	return least
}
