// Package setup writes the configuration of clients that use dray as a mirror: Docker, containerd,
// k3s, BuildKit and Podman. A plan lists the changes to a client's files. Subpackages edit and
// write the files.
package setup

import (
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dray/cmd/dray/config"
	"dray/cmd/dray/setup/install"
	"dray/cmd/dray/setup/nodes"
	"dray/cmd/dray/usage"
)

// Options configure the subcommand.
type Options struct {
	Stdout, Stderr io.Writer
	// Load returns the configuration that the subcommand serve would use.
	Load func() (config.Config, error)
}

// defaultDialTimeout is the time within which containerd and Docker 29 have to connect to the
// mirror. If the mirror's address does not answer, each request of a pull waits that long.
const defaultDialTimeout = 200 * time.Millisecond

// flags are the flags of the subcommands.
type flags struct {
	mirrorFlags
	version           string
	dialTimeout       time.Duration
	root              string
	write, undo, json bool
	hostsOnly         bool // only containerd has this flag
}

// Command returns the subcommand setup.
func Command(o Options) *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:   "setup",
		Short: "Print or write the configuration of a client for this mirror",
		Long: `setup prints the configuration that makes a client use dray as a mirror. With
--write, it writes the files on the machine where it runs.

The mirror is a listener of dray's configuration, or the URL in --url. With
--url, setup needs no configuration, so you can run it on the machine of the
client. It then assumes that the mirror has Docker Hub alone. If it has others,
name all of its registries with --registry.

--write merges its settings into existing files. It prints the changes, and
copies each former file to FILE.before-dray. If it cannot merge a file, it does
not change the file and prints the reason. --undo removes the settings that
--write has written, even if somebody has edited other lines since.`,
		Example: `  dray setup containerd --url https://dray.example.com --registry docker.io --registry quay.io
  sudo dray setup docker --config /etc/dray/dray.yaml --write
  sudo dray setup docker --undo`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("setup does not know the client %q; it knows docker, containerd, k3s, buildkit and podman, and docs/clients.md has recipes for others; %w", args[0], usage.Err)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	for _, c := range clients {
		cmd.AddCommand(c.command(o, &f))
	}
	cmd.AddCommand(nodes.Command(o.Stdout, o.Stderr))
	set := cmd.PersistentFlags()
	set.StringVar(&f.url, "url", "", "URL of the mirror (default: external_url or address of a listener)")
	set.StringVar(&f.listener, "listener", "", "listener of the configuration that is the mirror (default: the first with role mirror, or the first)")
	set.StringArrayVar(&f.registries, "registry", nil, "registry that the mirror has, as NAME or NAME=PREFIX (repeatable; default: those of the configuration, or docker.io)")
	set.StringVar(&f.authority, "ca", "", "PEM file with the certificate that clients have to trust (default: the listener's, if it is its own authority)")
	set.StringVar(&f.version, "client-version", "", "version of the client, such as 2.1 (default: that of the client on this machine)")
	set.DurationVar(&f.dialTimeout, "dial-timeout", defaultDialTimeout, "time after which containerd and Docker 29 give up connecting to the mirror")
	set.StringVar(&f.root, "root", "/", "directory to use as / for the files")
	set.BoolVar(&f.write, "write", false, "write the files")
	set.BoolVar(&f.undo, "undo", false, "remove the settings that --write has written")
	set.BoolVar(&f.json, "json", false, "print JSON")
	return cmd
}

func (c client) command(o Options, f *flags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   c.name,
		Short: c.about,
		Args:  usage.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := c.run(cmd, o, f)
			if err != nil {
				return err
			}
			if err := r.print(o, f.json); err != nil {
				return err
			}
			return r.failure()
		},
	}
	if c.flags != nil {
		c.flags(cmd, f)
	}
	return cmd
}

// report is the result of setup: the contents of files, or the changes to them.
type report struct {
	Client  string `json:"client"`
	Version string `json:"version,omitempty"`
	Mirror  string `json:"mirror,omitempty"`
	// Files are the files to print. Results are the changes to the files of the client.
	Files   []printed        `json:"files,omitempty"`
	Results []install.Result `json:"results,omitempty"`
	Notes   []string         `json:"notes,omitempty"`
	// Apply are the commands that make the client use the files.
	Apply []string `json:"apply,omitempty"`
}

// printed is a file with the content that --write gives it if it does not exist yet.
type printed struct {
	Path    string `json:"path"`
	Content string `json:"content"`
}

// run writes the files of a client, undoes the changes of an earlier run, or reports the contents
// of the files.
func (c client) run(cmd *cobra.Command, o Options, f *flags) (*report, error) {
	if f.write && f.undo {
		return nil, fmt.Errorf("set either --write or --undo; %w", usage.Err)
	}
	place := install.Place{Root: f.root, Client: c.name}
	r := &report{Client: c.name}
	if f.undo {
		results, err := place.Undo()
		r.Results = results
		return r, err
	}
	m, notes, err := f.find(o.Load)
	if err != nil {
		return nil, err
	}
	s := setting{mirror: m, dialTimeout: f.dialTimeout, hostsOnly: f.hostsOnly}
	if s.version, err = c.version(cmd, f); err != nil {
		return nil, err
	}
	s.read = func(string) ([]byte, error) { return nil, fs.ErrNotExist }
	s.glob = func(string) []string { return nil }
	if f.write {
		s.read, s.glob = place.Read, place.Glob
	}
	p, err := c.plan(s)
	if err != nil {
		return nil, err
	}
	r.Version, r.Mirror, r.Notes = s.version.String(), m.url(), append(notes, p.notes...)
	if !f.write {
		return r, r.show(p)
	}
	if r.Results, err = place.Write(p.changes); err != nil {
		return nil, err
	}
	for _, result := range r.Results {
		if apply := p.apply[result.Path]; apply != "" && result.State == install.Written {
			r.Apply = append(r.Apply, apply)
		}
	}
	return r, nil
}

// version returns the client's version from the flag --client-version. Without this flag, version
// runs the client's program on this machine to find the version, but only if --root is /. Without
// the flag and with another --root, the version is unknown.
func (c client) version(cmd *cobra.Command, f *flags) (version, error) {
	if f.version == "" {
		if filepath.Clean(f.root) != "/" {
			return version{}, nil
		}
		return ask(cmd.Context(), c.program), nil
	}
	v, ok := parseVersion(f.version)
	if !ok {
		return v, fmt.Errorf("--client-version %s: not a version; write one like 2.1; %w", f.version, usage.Err)
	}
	return v, nil
}

// show adds the files of a plan to the report, as if none of them existed yet.
func (r *report) show(p plan) error {
	for _, c := range p.changes {
		content, err := c.Merge(nil)
		if err != nil {
			return fmt.Errorf("%s: %w", c.Path, err)
		}
		if content == nil {
			continue
		}
		r.Files = append(r.Files, printed{c.Path, string(content)})
		if apply := p.apply[c.Path]; apply != "" {
			r.Apply = append(r.Apply, apply)
		}
	}
	return nil
}

// failure returns an error if a file was left alone.
func (r *report) failure() error {
	var alone []string
	for _, result := range r.Results {
		if result.State == install.LeftAlone {
			alone = append(alone, result.Path)
		}
	}
	if len(alone) == 0 {
		return nil
	}
	return fmt.Errorf("left alone: %s", strings.Join(alone, ", "))
}

func (r *report) print(o Options, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(o.Stdout)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(r)
	}
	var out, notes strings.Builder
	for i, f := range r.Files {
		if i > 0 {
			out.WriteString("\n")
		}
		fmt.Fprintf(&out, "# %s\n%s", f.Path, f.Content)
	}
	for _, f := range r.Results {
		out.WriteString(f.Diff)
		fmt.Fprintf(&out, "%s: %s", f.State, f.Path)
		if f.Backup != "" {
			fmt.Fprintf(&out, " (the former file is %s)", f.Backup)
		}
		out.WriteString("\n")
		if f.Reason != "" {
			fmt.Fprintf(&notes, "%s is left alone: %s\n", f.Path, f.Reason)
		}
	}
	if len(r.Files) == 0 && len(r.Results) == 0 {
		out.WriteString("nothing to do\n")
	}
	for _, note := range r.Notes {
		fmt.Fprintf(&notes, "note: %s\n", note)
	}
	for _, apply := range r.Apply {
		fmt.Fprintf(&notes, "then run: %s\n", apply)
	}
	if _, err := io.WriteString(o.Stdout, out.String()); err != nil {
		return err
	}
	_, err := io.WriteString(o.Stderr, notes.String())
	return err
}
