package setup

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"time"
)

// version is the version of a client. The zero value is an unknown version.
type version struct{ major, minor int }

var versionNumber = regexp.MustCompile(`(\d+)\.(\d+)|^v?(\d+)$`)

// parseVersion finds the version in a text such as "containerd github.com/containerd/containerd
// v2.1.4 …", "29" or "v1.33.4+k3s1".
func parseVersion(text string) (version, bool) {
	m := versionNumber.FindStringSubmatch(text)
	if m == nil {
		return version{}, false
	}
	major, err := strconv.Atoi(m[1] + m[3])
	if err != nil {
		return version{}, false
	}
	minor, _ := strconv.Atoi(m[2]) // 0 if the text has no minor version
	return version{major, minor}, true
}

func (v version) known() bool { return v != version{} }

// [version.before] reports whether the version is known and older than the given version.
func (v version) before(major, minor int) bool { return v.known() && v.less(major, minor) }

// [version.from] reports whether the version is known and at least the given version.
func (v version) from(major, minor int) bool { return v.known() && !v.less(major, minor) }

func (v version) less(major, minor int) bool {
	return v.major < major || v.major == major && v.minor < minor
}

func (v version) String() string {
	if !v.known() {
		return "unknown"
	}
	return fmt.Sprintf("%d.%d", v.major, v.minor)
}

// ask runs a program of this machine to find its version. The version is unknown if there is no
// such program, if it fails or takes longer than 10 s, or if its output has no version.
func ask(ctx context.Context, program string) version {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, "--version").Output()
	if err != nil {
		return version{}
	}
	v, _ := parseVersion(string(out))
	return v
}
