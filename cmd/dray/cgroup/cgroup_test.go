package cgroup_test

import (
	"testing"
	"testing/fstest"

	"dray/cmd/dray/cgroup"
)

func TestMemoryLimit(t *testing.T) {
	for name, tc := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"no control groups": {nil, 0},
		"no bound":          {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, 0},
		"a container":       {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1073741824\n"}, 1 << 30},
		"a service":         {map[string]string{"proc/self/cgroup": "0::/system.slice/dray.service\n", "sys/fs/cgroup/system.slice/dray.service/memory.max": "2147483648\n"}, 2 << 30},
		"a slice":           {map[string]string{"proc/self/cgroup": "0::/system.slice/dray.service\n", "sys/fs/cgroup/system.slice/dray.service/memory.max": "2147483648\n", "sys/fs/cgroup/system.slice/memory.max": "1073741824\n"}, 1 << 30},
		"version 1":         {map[string]string{"proc/self/cgroup": "9:memory:/docker/x\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "536870912\n"}, 512 << 20},
		"version 1, nested": {map[string]string{"proc/self/cgroup": "8:cpu,cpuacct:/x\n9:hugetlb,memory:/system.slice/dray.service\n0::/y\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n", "sys/fs/cgroup/memory/system.slice/memory.limit_in_bytes": "1073741824\n", "sys/fs/cgroup/memory/system.slice/dray.service/memory.limit_in_bytes": "2147483648\n", "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "1\n"}, 1 << 30},
		"version 1, none":   {map[string]string{"proc/self/cgroup": "9:memory:/docker/x\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, 0},
		"nonsense":          {map[string]string{"proc/self/cgroup": "0::../..\n0::\nx", "sys/fs/cgroup/memory.max": "-1\n"}, 0},
	} {
		files := fstest.MapFS{}
		for path, text := range tc.files {
			files[path] = &fstest.MapFile{Data: []byte(text)}
		}
		if got := cgroup.MemoryLimit(files); got != tc.want {
			t.Errorf("%s: %d, want %d", name, got, tc.want)
		}
	}
}
