// Package cgroup reads the limits of the control group that the process runs in.
package cgroup

import (
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// MemoryLimit returns the memory in bytes that the control group of the process may use, or 0 if
// there is no bound. For nested groups, the result is the least bound among them (Linux,
// Documentation/admin-guide/cgroup-v2.rst, "memory.max"). root is the root of the file system.
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
	bound("sys/fs/cgroup/memory/memory.limit_in_bytes")
	groups, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return least
	}
	for line := range strings.Lines(string(groups)) {
		group, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		for ok {
			bound(path.Join("sys/fs/cgroup", path.Clean("/"+group), "memory.max"))
			ok = group != "/" && group != "."
			group = path.Dir(group)
		}
	}
	return least
}
