package bundle

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"dray/cmd/dray/cgroup"
	"dray/cmd/dray/program"
)

// version describes a program.
type version struct {
	Version  string            `json:"version"`
	Go       string            `json:"go"`
	Platform string            `json:"platform"`
	Settings map[string]string `json:"settings"` // the settings of the build
}

func build() version {
	v := version{Version: program.Version(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, Settings: map[string]string{}}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			v.Settings[s.Key] = s.Value
		}
	}
	return v
}

var (
	// concerning matches the variables that concern dray.
	concerning = regexp.MustCompile(`(?i)^(DRAY_|AWS_|OTEL_|ECR_REGISTRY$|REGISTRY$|REGION$|PORT$|TLS_|GO|KUBERNETES_SERVICE|ECS_|XDG_CACHE_HOME$|SSL_CERT|HTTPS?_PROXY$|NO_PROXY$)`)
	// harmless matches the variables whose values the archive shows.
	harmless = regexp.MustCompile(`^(AWS_(DEFAULT_)?REGION|AWS_EC2_METADATA_DISABLED|AWS_USE_(FIPS|DUALSTACK)_ENDPOINT|AWS_MAX_ATTEMPTS|AWS_RETRY_MODE|GOMAXPROCS|GOMEMLIMIT|GOGC|GODEBUG)$`)
)

// environment lists the variables that concern dray.
func environment(environ []string) []byte {
	var lines []string
	for _, v := range environ {
		name, value, _ := strings.Cut(v, "=")
		switch {
		case harmless.MatchString(name):
			lines = append(lines, name+"="+value)
		case concerning.MatchString(name) && value != "":
			lines = append(lines, name+" is set")
		}
	}
	slices.Sort(lines)
	return []byte(strings.Join(lines, "\n") + "\n")
}

// machineFiles are the files that describe a machine (proc(5), Documentation/admin-guide/sysctl of
// Linux).
var machineFiles = []string{
	"etc/os-release", "proc/sys/kernel/ostype", "proc/sys/kernel/osrelease", "proc/sys/kernel/version", "proc/loadavg", "proc/self/limits", "proc/self/cgroup",
	"proc/sys/fs/file-max", "proc/sys/fs/file-nr", "proc/sys/net/core/somaxconn", "proc/sys/net/core/rmem_max", "proc/sys/net/core/wmem_max", "proc/sys/net/ipv4/tcp_rmem", "proc/sys/net/ipv4/tcp_wmem",
	"proc/sys/net/ipv4/tcp_congestion_control", "proc/sys/net/ipv4/tcp_available_ulp", "proc/sys/net/ipv4/ip_local_port_range", "proc/pressure/cpu", "proc/pressure/io", "proc/pressure/memory", "proc/meminfo",
}

// machine describes the machine whose file system has the given root.
func machine(root fs.FS) []byte {
	var text bytes.Buffer
	fmt.Fprintf(&text, "processors: %d, used at a time: %d\nmemory limit of the control group: %d bytes (0: none)\n", runtime.NumCPU(), runtime.GOMAXPROCS(0), cgroup.MemoryLimit(root))
	for _, name := range machineFiles {
		body, err := fs.ReadFile(root, name)
		if err != nil {
			fmt.Fprintf(&text, "\n/%s: %v\n", name, err)
			continue
		}
		fmt.Fprintf(&text, "\n/%s:\n%s\n", name, bytes.TrimSpace(body))
	}
	return text.Bytes()
}

// directory has the size of each entry of a directory.
type directory struct {
	Path    string           `json:"path"`
	Entries map[string]*size `json:"entries"`
	// Incomplete says that there was not enough time to count everything.
	Incomplete bool   `json:"incomplete,omitempty"`
	Error      string `json:"error,omitempty"`
}

// size counts the files in one entry of a directory, and the bytes of these files.
type size struct {
	Files int64 `json:"files"`
	Bytes int64 `json:"bytes"`
}

// directories counts the files in each directory, until ctx ends. A system call on a disk that
// hangs may never return. Therefore, the function does not wait for a count that is still running
// one second after ctx has ended.
func directories(ctx context.Context, count func(context.Context, string) directory, paths ...string) (all []directory) {
	for _, path := range slices.Compact(paths) {
		done := make(chan directory, 1)
		go func() { done <- count(ctx, path) }()
		var d directory
		select {
		case d = <-done:
		case <-ctx.Done():
			select {
			case d = <-done: // the count has stopped because ctx has ended
			case <-time.After(time.Second):
				d = directory{Path: path, Incomplete: true, Error: "the disk does not answer"}
			}
		}
		all = append(all, d)
	}
	return all
}

// count counts the files in a directory, until ctx ends.
func count(ctx context.Context, path string) directory {
	d := directory{Path: path, Entries: map[string]*size{}}
	err := filepath.WalkDir(path, func(at string, f fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			d.Incomplete = true
			return fs.SkipAll
		}
		inside, _ := filepath.Rel(path, at)
		first, _, _ := strings.Cut(inside, string(os.PathSeparator))
		if err != nil && at == path {
			return err
		}
		if err != nil || f.IsDir() || first == "." {
			return nil // leaves out entries that disappear meanwhile or cannot be read
		}
		if d.Entries[first] == nil {
			d.Entries[first] = &size{}
		}
		d.Entries[first].Files++
		if info, err := f.Info(); err == nil {
			d.Entries[first].Bytes += info.Size()
		}
		return nil
	})
	if err != nil {
		d.Error = err.Error()
	}
	return d
}
