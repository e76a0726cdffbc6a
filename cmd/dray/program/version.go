package program

import (
	"cmp"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"dray/cmd/dray/usage"
)

// version is set by the linker in releases: -ldflags "-X dray/cmd/dray/program.version=1.2.3".
var version string

// VersionCommand returns the subcommand that prints the version.
func VersionCommand(stdout io.Writer) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  usage.NoArguments,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(stdout, "dray %s %s %s/%s\n", Version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

// Version returns the version of the release. If the program is not a release, Version returns the
// module version or the revision that the toolchain recorded in the binary.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return cmp.Or(version, "unknown")
	}
	built := info.Main.Version
	if built == "(devel)" {
		built = ""
	}
	var revision, modified string
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = "+dirty"
		}
	}
	if built == "" && revision != "" {
		built = "devel-" + revision + modified
	}
	return cmp.Or(version, built, "devel")
}
