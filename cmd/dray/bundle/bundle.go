// Package bundle writes an archive for the diagnosis of problems. The archive has the
// configuration, the findings of dray doctor, and pages of a running dray, without secrets.
package bundle

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dray/cmd/dray/config"
	"dray/cmd/dray/ctl"
	"dray/cmd/dray/doctor"
	"dray/cmd/dray/usage"
)

// Options configure the subcommand.
type Options struct {
	Stdout, Stderr io.Writer
	// Environ has the environment, in the form of os.Environ.
	Environ []string
	// Load returns the configuration that serve would use. If it returns an error, the configuration
	// has only the values that could be read.
	Load func() (config.Config, error)
	// Doctor runs the checks of dray doctor. bound is the longest time for one check. address is the
	// address of the admin listener; empty means the address in the configuration.
	Doctor func(ctx context.Context, address string, bound time.Duration) doctor.Report
	// Running makes cmd call the function action when cmd runs, and returns cmd. The argument of
	// action reads pages of a running dray.
	Running func(cmd *cobra.Command, action func(context.Context, ctl.Pages) error) *cobra.Command
}

const (
	maxFile = 1 << 20 // in bytes; the scrubber takes no secrets from a larger file
	// bound is the longest time for one check of dray doctor.
	bound = 10 * time.Second
	// patience bounds the time for one page, and the time for the sizes of all directories together.
	patience = 30 * time.Second
)

// Command returns the subcommand debug, which has the subcommand bundle.
func Command(o Options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "debug",
		Short: "Collect data that helps to find the cause of a problem",
		Args:  usage.NoArguments,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(bundleCommand(o))
	return cmd
}

func bundleCommand(o Options) *cobra.Command {
	var output string
	var clients bool
	var cmd *cobra.Command
	cmd = o.Running(&cobra.Command{
		Use:   "bundle",
		Short: "Collect data for somebody who investigates a problem, without secrets",
		Long: `bundle writes an archive (tar.gz) for somebody who investigates a problem of dray:
versions, the effective configuration, the results of dray doctor, limits and the
kernel of this machine, and the sizes of the directories of dray. If a dray is
running, the archive also has its metrics, its health, the pulls and pushes under way,
the queue, the fleet, and profiles of its goroutines and memory. README.txt in the
archive lists its files, and says which files are missing and why.

bundle removes secrets from the archive: passwords, tokens, keys and hashes of
passwords. It knows them from the configuration, from the files that the
configuration names, and from the environment. It also removes texts that look like
secrets. It replaces addresses and names of clients by numbers, unless you set
--clients. Names of registries, repositories and tags stay in the archive. Read the
archive before you send it to somebody.

Run bundle on the machine of dray, as the user of dray and with the same environment.
The archive has the profiles only if you have the right "operate".`,
		Example: "  dray debug bundle\n  dray debug bundle --output - | ssh elsewhere 'cat > dray.tar.gz'",
		Args:    usage.NoArguments,
	}, func(ctx context.Context, pages ctl.Pages) error {
		address, _ := cmd.Flags().GetString("admin")
		cfg, err := o.Load()
		b := &bundle{at: time.Now().UTC(), scrub: newScrubber(cfg, o.Environ)}
		if !clients {
			b.names = newNames()
		}
		b.running(ctx, pages) // first: if a disk hangs, somebody may interrupt the rest
		said := b.parts
		b.parts = nil
		b.here(ctx, o, cfg, err, address)
		b.parts = append(b.parts, said...)
		return o.write(b, output)
	})
	cmd.Flags().StringVar(&output, "output", "", "file to write, which must not exist, or - for standard output (default: dray-debug-TIME.tar.gz)")
	cmd.Flags().BoolVar(&clients, "clients", false, "do not replace addresses and names of clients")
	return cmd
}

// bundle is an archive in the making.
type bundle struct {
	at    time.Time
	scrub *scrubber
	names *names // nil if the archive names clients
	parts []part
}

// part is one file of the archive.
type part struct {
	name, about string
	body        []byte
	err         error // why the file is missing, or nil
}

// add adds a file with the given body, without the secrets in it. err is the reason why the file is
// missing, or nil.
func (b *bundle) add(name, about string, body []byte, err error) {
	b.parts = append(b.parts, part{name, about, b.scrub.clean(body), err})
}

// json adds a file with the value as JSON.
func (b *bundle) json(name, about string, value any) {
	body, err := json.MarshalIndent(value, "", "  ")
	b.add(name, about, body, err)
}

// here adds the files that need no running dray.
func (b *bundle) here(ctx context.Context, o Options, cfg config.Config, invalid error, address string) {
	b.json("version.json", "the program that made this archive", build())
	const about = "the effective configuration, with all defaults"
	var text bytes.Buffer
	err := invalid
	if err == nil {
		err = cfg.Print(&text)
	}
	configuration := text.Bytes()
	if err == nil && b.names != nil {
		configuration, err = b.names.users(configuration)
	}
	if err != nil {
		configuration = nil
	}
	b.add("configuration.yaml", about, configuration, err)
	b.add("environment.txt", "variables that concern dray; values only of those that have no secrets", environment(o.Environ), nil)
	b.json("doctor.json", "what dray doctor finds on this machine", o.Doctor(ctx, address, bound))
	b.add("machine.txt", "the kernel, limits and control group of this machine and of this process, which may have other limits than dray", machine(os.DirFS("/")), nil)
	within, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	b.json("disk.json", "how many files and bytes are in the directories of dray", directories(within, count, cfg.Cache.Directory, cmp.Or(cfg.State.Directory, cfg.Cache.Directory)))
}

// running adds pages of the admin listener of a running dray.
func (b *bundle) running(ctx context.Context, pages ctl.Pages) {
	var unreachable error
	for _, p := range []struct {
		name, about, path string
		anonymous         func([]byte) ([]byte, error)
	}{
		{"metrics.txt", "the metrics of the running dray", "/metrics", nil},
		{"readyz.json", "the health of the running dray", "/readyz", nil},
		{"live.json", "the pulls and pushes under way", "/api/v1/live", b.names.live},
		{"queue.json", "the pushes that were acknowledged and not forwarded", "/api/v1/queue", b.names.queue},
		{"fleet.json", "the members of the fleet", "/api/v1/fleet", nil},
		{"goroutines.txt", "where the goroutines of the running dray are", "/debug/pprof/goroutine?debug=1", nil},
		{"heap.pb.gz", "where its memory is, for go tool pprof", "/debug/pprof/heap", nil},
	} {
		if unreachable != nil {
			b.add(p.name, p.about, nil, unreachable)
			continue
		}
		within, cancel := context.WithTimeout(ctx, patience)
		body, err := pages(within, p.path)
		cancel()
		if errors.Is(err, ctl.ErrUnreachable) {
			unreachable = err
		}
		if err == nil && p.anonymous != nil && b.names != nil {
			body, err = p.anonymous(body)
		}
		if strings.HasSuffix(p.name, ".gz") { // a compressed profile has no secrets: it has only names of functions and files
			b.parts = append(b.parts, part{p.name, p.about, body, err})
			continue
		}
		b.add(p.name, p.about, body, err)
	}
}

// readme says what is in the archive.
func (b *bundle) readme() []byte {
	var text bytes.Buffer
	fmt.Fprintf(&text, "What dray debug bundle collected at %s.\n\n", b.at.Format(time.RFC3339))
	for _, p := range b.parts {
		if p.err == nil {
			fmt.Fprintf(&text, "%-20s %s\n", p.name, p.about)
		}
	}
	missing := false
	for _, p := range b.parts {
		if p.err == nil {
			continue
		}
		if !missing {
			missing = true
			fmt.Fprint(&text, "\nNot there:\n\n")
		}
		fmt.Fprintf(&text, "%-20s %v\n", p.name, p.err)
	}
	fmt.Fprint(&text, "\ndray keeps no lines of its log. Add those of the time in question, for example by\njournalctl -u dray --since '1 hour ago', and read them first: they name clients.\n")
	if b.names != nil {
		fmt.Fprint(&text, "Addresses and names of clients are replaced by numbers.\n")
	}
	return b.scrub.clean(text.Bytes())
}

// archive writes the archive.
func (b *bundle) archive(w io.Writer) error {
	zip := gzip.NewWriter(w)
	out := tar.NewWriter(zip)
	for _, p := range append([]part{{name: "README.txt", body: b.readme()}}, b.parts...) {
		if p.err != nil {
			continue
		}
		if err := out.WriteHeader(&tar.Header{Name: path.Join("dray-debug", p.name), Mode: 0o600, Size: int64(len(p.body)), ModTime: b.at, Format: tar.FormatPAX}); err != nil {
			return err
		}
		if _, err := out.Write(p.body); err != nil {
			return err
		}
	}
	return errors.Join(out.Close(), zip.Close())
}

// write prints which files are missing and why. Then it writes the archive to standard output if
// output is "-", or else to a new file that only its owner can read.
func (o Options) write(b *bundle, output string) error {
	for _, p := range b.parts {
		if p.err != nil {
			fmt.Fprintf(o.Stderr, "not there: %s: %s\n", p.name, b.scrub.clean([]byte(p.err.Error())))
		}
	}
	if output == "-" {
		return b.archive(o.Stdout)
	}
	if output == "" {
		output = "dray-debug-" + b.at.Format("20060102T150405Z") + ".tar.gz"
	}
	f, err := os.OpenFile(output, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("the archive cannot be written: %w; give another file with --output", err)
	}
	if err := errors.Join(b.archive(f), f.Close()); err != nil {
		return fmt.Errorf("the archive cannot be written: %w; give another file with --output", err)
	}
	_, err = fmt.Fprintln(o.Stdout, output)
	return err
}
