package doctor

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dray/cache/fleet"
	"dray/cmd/dray/certificates"
	"dray/cmd/dray/cgroup"
	"dray/cmd/dray/config"
	"dray/cmd/dray/ctl"
	"dray/cmd/dray/program"
	"dray/cmd/dray/usage"
	"dray/mirror/admin/api"
	"dray/mirror/wire"
	"dray/upstream/ecr"
)

// Options configure the subcommand.
type Options struct {
	Stdout  io.Writer
	Environ []string
	// Load returns the configuration that serve would use. Notices returns the notices about it.
	Load    func() (config.Config, error)
	Notices func(config.Config) []string
	// Registries returns the upstreams, made as serve makes them. pushTo names a repository in which
	// the doctor may start an upload; empty means none.
	Registries func(ctx context.Context, cfg config.Config, pushTo string) ([]Registry, error)
	// Redis describes the Redis of the configuration.
	Redis func(context.Context, config.Config) (Facts, error)
	// Members returns the members of the fleet that are alive according to Redis. Identity returns the
	// ARN under which AWS knows dray.
	Members  func(context.Context, config.Config) ([]fleet.Member, error)
	Identity func(context.Context, config.Config) (string, error)
	// Bucket describes the bucket. Path returns the network route by which this machine reaches the
	// layers of ECR.
	Bucket func(context.Context, config.Config) Bucket
	Path   func(context.Context, config.Config) (ecr.Path, error)
}

// target has the flags that describe the dray to check.
type target struct {
	admin  string // address of the admin listener; empty means the address in the configuration
	pushTo string // name of a repository in which the doctor may start an upload; empty means none
}

// Command returns the subcommand.
func Command(o Options) *cobra.Command {
	var asJSON bool
	var client clientFlags
	bound, at := 10*time.Second, target{}
	cmd := &cobra.Command{
		Use:   "doctor [URL IMAGE]",
		Short: "Find problems of dray, or of a client of dray, on this machine",
		Long: `doctor reads the configuration as serve does, and checks the configuration and its
notices, the disk of the cache, certificates, limits of this machine and how it
sends files, Redis, the members of the fleet, the identity at AWS, the bucket and
the listeners. For each registry, it checks that dray reaches and trusts the
registry, that dray reaches the host of the layers, that the registry accepts dray's
credentials, that the clocks agree, and how many pulls the registry still allows. If
a dray is running, doctor also reads its health.

Run doctor as the user of dray and with the same environment. doctor sends each
registry one HEAD and one GET of /v2/, and Docker Hub a second HEAD, which does not
count as a pull. It writes small files to the cache directory and entries of its
own to Redis, and removes them again. It changes nothing at a registry, unless you
name a repository with --push-to: then it starts an upload there, and cancels it.

With --client, doctor checks a client on this machine instead of dray, and needs no
configuration. It checks whether the client's files send pulls to the mirror at URL,
as the files of dray setup do, whether the client trusts and reaches the mirror, and
how the mirror answers a pull of IMAGE. For this, doctor requests the manifest from
the mirror once, as the client would.

Each line begins with a sign: √ is fine, ‼ a warning, × a failure, and ? means that
doctor could not find out, which is no failure. A hint says what to do. The exit code
is 0 if there is no failure, and 4 otherwise.`,
		Example: "  dray doctor --config /etc/dray/dray.yaml\n  dray doctor --push-to ecr/team/app\n  dray doctor --client docker https://dray.example.com alpine:3",
		Args: func(cmd *cobra.Command, args []string) error {
			if client.name == "" {
				return usage.NoArguments(cmd, args)
			}
			if len(args) != 2 {
				return fmt.Errorf("dray doctor --client takes the URL of the mirror and the name of an image; %w", usage.Err)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			var checks []Check
			var end func()
			var err error
			if client.name == "" {
				checks, end = o.checks(cmd.Context(), at)
			} else if checks, end, err = client.checks(cmd.Context(), args[0], args[1]); err != nil {
				return err
			}
			r := Run(cmd.Context(), checks, bound)
			end()
			if err := o.print(r, asJSON); err != nil {
				return err
			}
			if r.Failures > 0 {
				return program.ErrRejected
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&client.name, "client", "", "check this client instead of dray: docker, containerd, k3s, buildkit or podman")
	cmd.Flags().StringVar(&client.version, "client-version", "", "with --client: version of the client (default: that of the program on this machine)")
	cmd.Flags().StringVar(&client.root, "root", "/", "with --client: directory to use as / for the files")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().DurationVar(&bound, "timeout", bound, "longest time for one check")
	cmd.Flags().StringVar(&at.pushTo, "push-to", "", "repository in which doctor starts and cancels an upload, to check the right to push")
	cmd.Flags().StringVar(&at.admin, "admin", "", "address of the admin listener of the running dray (default: admin.address of the configuration)")
	return cmd
}

// Report runs the checks of a dray. The parameter bound is the longest time for one check. address
// is the address of the admin listener; empty means the address in the configuration.
func (o Options) Report(ctx context.Context, address string, bound time.Duration) Report {
	checks, closeAll := o.checks(ctx, target{admin: address})
	defer closeAll()
	return Run(ctx, checks, bound)
}

// checks returns the checks for the configuration. If the configuration is invalid, that is the
// only finding. closeAll closes the connections that the checks opened to registries.
func (o Options) checks(ctx context.Context, at target) (all []Check, closeAll func()) {
	cfg, err := o.Load()
	if err != nil {
		return []Check{{"configuration", "configuration.valid", func(context.Context) Finding {
			return failed("mend what dray check prints", "%v", err)
		}}}, func() {}
	}
	all = []Check{
		{"configuration", "configuration.valid", func(context.Context) Finding { return ok("the configuration is valid") }},
		{"configuration", "configuration.notices", func(context.Context) Finding { return notices(o.Notices(cfg)) }},
		{"machine", "machine.files", func(context.Context) Finding { return openFiles(wire.OpenFiles) }},
		{"machine", "machine.memory", func(context.Context) Finding { return memory(cgroup.MemoryLimit(os.DirFS("/")), cfg.Cache) }},
		{"machine", "machine.proxy", func(context.Context) Finding { return proxies(o.Environ) }},
		{"machine", "machine.sending", func(context.Context) Finding { return sending(cfg.Cache.Directory, wire.TrySplice) }},
	}
	all = append(all, directory(cfg.Cache)...)
	if files := certificates.NewFiles(cfg.CertificateFiles()); !files.Empty() {
		all = append(all, Check{"listeners", "listeners.certificates", func(ctx context.Context) Finding {
			if err := files.Check(ctx); err != nil {
				return failed("replace the certificate; dray reads it again by itself", "%v", err)
			}
			return ok("the certificates are valid")
		}})
	}
	for _, l := range cfg.Listeners {
		all = append(all, listener(l))
	}
	if cfg.Metadata.URL != "" {
		all = append(all, redis(func(ctx context.Context) (Facts, error) { return o.Redis(ctx, cfg) }))
	}
	if cfg.Fleet.On(cfg.Metadata) {
		all = append(all, members(cfg.Fleet.Advertise, func(ctx context.Context) ([]fleet.Member, error) { return o.Members(ctx, cfg) }))
	}
	if slices.ContainsFunc(cfg.Upstreams, config.Upstream.UsesAWS) {
		all = append(all, identity(func(ctx context.Context) (string, error) { return o.Identity(ctx, cfg) }))
	}
	if slices.ContainsFunc(cfg.Upstreams, func(u config.Upstream) bool { return u.Kind == config.KindECR }) {
		all = append(all, path(func(ctx context.Context) (ecr.Path, error) { return o.Path(ctx, cfg) }))
	}
	if cfg.Bucket.URL != "" {
		all = append(all, bucket(func(ctx context.Context) Bucket { return o.Bucket(ctx, cfg) })...)
	}
	registries, err := o.Registries(ctx, cfg, at.pushTo)
	if err != nil {
		all = append(all, Check{"registries", "registries", func(context.Context) Finding {
			return failed("mend the configuration of the upstream", "%v", err)
		}})
	}
	for _, r := range registries {
		all = append(all, r.checks()...)
	}
	if address := cmp.Or(at.admin, cfg.Admin.Address); address != config.AdminOff {
		all = append(all, running(func(ctx context.Context) (api.Readiness, error) { return ctl.Readiness(ctx, address) }))
	}
	return all, func() {
		for _, r := range registries {
			r.Transport.CloseIdleConnections()
		}
	}
}

func notices(all []string) Finding {
	if len(all) == 0 {
		return ok("there are no notices about the configuration")
	}
	return warning("a notice is about a setting that is valid and seldom intended", "%s", strings.Join(all, " "))
}

// print writes the findings by category, each on a line, followed by its hint.
func (o Options) print(r Report, asJSON bool) error {
	if asJSON {
		out := json.NewEncoder(o.Stdout)
		out.SetIndent("", "  ")
		return out.Encode(r)
	}
	signs := map[Status]string{OK: "√", Warning: "‼", Failed: "×", Unknown: "?"}
	category := ""
	for _, f := range r.Findings {
		if f.Category != category {
			if category != "" {
				fmt.Fprintln(o.Stdout)
			}
			category = f.Category
			fmt.Fprintln(o.Stdout, category)
		}
		fmt.Fprintf(o.Stdout, "%s %s (%s)\n", signs[f.Status], f.Text, f.ID)
		if f.Hint != "" {
			fmt.Fprintf(o.Stdout, "    %s\n", f.Hint)
		}
		if f.Doc != "" {
			fmt.Fprintf(o.Stdout, "    see %s\n", f.Doc)
		}
	}
	_, err := fmt.Fprintf(o.Stdout, "\n%s, %s\n", count(r.Failures, "failure"), count(r.Warnings, "warning"))
	return err
}

// count returns a number with a noun, such as "1 failure".
func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
