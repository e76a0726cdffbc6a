package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"dray/cmd/dray/config"
	"dray/cmd/dray/program"
	"dray/cmd/dray/registries"
	"dray/cmd/dray/routes"
	"dray/cmd/dray/usage"
	"dray/cmd/dray/watched"
	"dray/mirror/pattern"
	"dray/mirror/pipeline"
	"dray/mirror/pipeline/local"
	"dray/upstream"
	"dray/upstream/ecr"
	"dray/upstream/oci"
)

func checkImageCommand(in *invocation) *cobra.Command {
	var c imageCheck
	cmd := &cobra.Command{
		Use:   "check-image IMAGE",
		Short: "Check an image against the configured checks before you push it",
		Long: `check-image runs the configured checks on an image, as a push would, and prints
the report. It pushes nothing, and dray need not be running.

IMAGE is one of
  oci:DIRECTORY[:TAG]          an OCI layout, such as the output of "docker buildx
                               build --output type=oci,tar=false,dest=DIRECTORY"
  docker-archive:FILE[:TAG]    an archive of "docker save" or of an OCI layout, which
                               may be compressed with gzip
  oci-archive:FILE[:TAG]       the same
  NAME                         an image in a registry, named as for "docker pull"
                               through dray

TAG selects one of several images. It may also be a repository with a tag, such
as team/app:1.2.

--as sets the name that you want to push the image as. This name decides which
checks apply, and the rules for names examine it.

check-image exits with 0 if the image would pass, with 4 if it would be rejected,
and with 1 if it could not be checked.`,
		Example: "  dray check-image docker-archive:app.tar --as dray.example.com:5000/team/app:1.2\n  dray check-image oci:build --checks strict --json",
		Args:    usage.Between(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := in.load()
			if err != nil {
				return err
			}
			return c.run(cmd.Context(), cfg, args[0], in.stdout)
		},
	}
	cmd.Flags().StringVar(&c.as, "as", "", "name and tag that you want to push the image as")
	cmd.Flags().StringVar(&c.checks, "checks", "", "name of the checks (default: those that apply to the name in --as or, without --as, to IMAGE)")
	cmd.Flags().BoolVar(&c.json, "json", false, "print the report as JSON")
	cmd.Flags().BoolVar(&c.view, "view", false, "print the document that rules examine, and run no checks")
	return cmd
}

// imageCheck is one run of check-image.
type imageCheck struct {
	as, checks string
	json, view bool
}

func (c imageCheck) run(ctx context.Context, cfg config.Config, image string, out io.Writer) error {
	from, err := openImage(ctx, cfg, image)
	if err != nil {
		return err
	}
	defer from.close()
	name := from.name
	if c.as != "" {
		if name, err = pushedAs(cfg, c.as); err != nil {
			return err
		}
	}
	p, err := pipelineFor(cfg, c.checks, name)
	if err != nil {
		return err
	}
	name.Digest = from.root.Digest
	subject, contents := pipeline.Subject{Name: name, Manifest: from.root}, local.Contents{Blobs: from.blobs, Pipeline: p}
	if c.view {
		img, err := p.View(ctx, subject, contents)
		if err != nil {
			return err
		}
		return printJSON(out, img)
	}
	r, err := p.Judge(ctx, subject, contents)
	if err != nil {
		return err
	}
	if c.json {
		err = printJSON(out, r)
	} else {
		printReport(out, r)
	}
	if err == nil && !r.Pass {
		err = program.ErrRejected
	}
	return err
}

// pushedAs resolves a name as a push through dray would.
func pushedAs(c config.Config, name string) (pipeline.Name, error) {
	target, ref, err := routes.NamesOf(c).Resolve(name)
	if err != nil {
		return pipeline.Name{}, fmt.Errorf("%s: %s", name, oci.AsError(err).Message)
	}
	return pipeline.Name{Upstream: target.Upstream, Repository: target.Repo, Tag: ref.Tag}, nil
}

// pipelineFor makes the pipeline that one entry of `checks` in the configuration describes.
// entryName is the name of the entry. If it is empty, pipelineFor takes the first entry that n's
// upstream names and that applies to n's repository. If the upstream names no entry, and the
// configuration has a single entry, pipelineFor takes this entry if it applies to n's repository.
func pipelineFor(c config.Config, entryName string, n pipeline.Name) (*pipeline.Pipeline, error) {
	var candidates []string
	switch u := slices.IndexFunc(c.Upstreams, func(u config.Upstream) bool { return u.Name == n.Upstream }); {
	case entryName != "":
		candidates = []string{entryName}
	case u >= 0 && len(c.Upstreams[u].Checks) > 0:
		candidates = c.Upstreams[u].Checks
	case len(c.Checks) == 1:
		candidates = []string{c.Checks[0].Name}
	}
	for _, name := range candidates {
		for _, one := range c.Checks {
			if one.Name == name && (entryName != "" || n.Repository == "" || pattern.Any(one.Repositories, n.Repository)) {
				return pipelineOf(one, pipeline.Options{}, nil, watched.Watching(nil))
			}
		}
	}
	if entryName != "" {
		return nil, fmt.Errorf("the configuration has no checks named %q", entryName)
	}
	return nil, errors.New("no checks apply to this image; set --checks, or set --as to the name that you want to push it as")
}

// opened is an image that can be judged. [opened.close] releases the image.
type opened struct {
	root  *oci.Manifest
	blobs local.Blobs
	name  pipeline.Name
	close func()
}

func openImage(ctx context.Context, cfg config.Config, image string) (*opened, error) {
	kind, rest, _ := strings.Cut(image, ":")
	var files *local.Files
	var err error
	path, selected := splitName(rest)
	switch kind {
	case "oci":
		files, err = local.OpenLayout(path)
	case "docker-archive", "oci-archive":
		files, err = local.OpenArchive(path)
	default:
		if form := fileForm(image); form != "" {
			return nil, fmt.Errorf("%s is a file or directory of this machine; write %s:%[1]s, or the name of an image with its registry", image, form)
		}
		return openRemote(ctx, cfg, image)
	}
	if err != nil {
		return nil, err
	}
	tag := selected[strings.LastIndexByte(selected, ':')+1:]
	o := &opened{blobs: files, name: pipeline.Name{Tag: tag}, close: func() { _ = files.Close() }}
	if o.root, err = files.Root(ctx, selected); err != nil {
		o.close()
		return nil, fmt.Errorf("%s: %w", image, err)
	}
	return o, nil
}

// fileForm returns the prefix, such as oci, that a user has to write before the path of an archive
// or layout. It takes every regular file for an archive, and returns "" for a path without either.
// A directory often has the same name as an image in a registry. So fileForm takes a directory for
// a layout only if it has the file oci-layout (image-spec, "OCI Image Layout Specification").
func fileForm(path string) string {
	if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
		return "docker-archive"
	}
	if _, err := os.Stat(filepath.Join(path, "oci-layout")); err == nil {
		return "oci"
	}
	return ""
}

// splitName splits PATH:NAME, where both may contain colons, at the end of the longest PATH that
// exists. If no such PATH exists, or if the whole text is the path of a file, NAME is empty.
func splitName(text string) (path, name string) {
	for i := len(text); i > 0; i = strings.LastIndexByte(text[:i], ':') {
		if _, err := os.Stat(text[:i]); err == nil {
			return text[:i], strings.TrimPrefix(text[i:], ":")
		}
	}
	return text, ""
}

// remote reads images of one repository of a registry.
type remote struct {
	source upstream.Source
	repo   upstream.Repo
}

// Manifest implements local.Blobs.
func (r remote) Manifest(ctx context.Context, d oci.Descriptor) (*oci.Manifest, error) {
	return r.source.Manifest(ctx, r.repo, oci.Reference{Digest: d.Digest}, oci.AnyManifest())
}

// Open implements local.Blobs.
func (r remote) Open(ctx context.Context, d oci.Descriptor) (io.ReadCloser, error) {
	s, err := r.source.Blob(ctx, upstream.BlobRequest{Repo: r.repo, Digest: d.Digest})
	return s.Body, err
}

// openRemote resolves the name of an image, and opens the image at its upstream with the
// credentials that dray has for that upstream.
func openRemote(ctx context.Context, cfg config.Config, image string) (*opened, error) {
	target, ref, err := routes.NamesOf(cfg).Resolve(image)
	if err != nil {
		return nil, fmt.Errorf("%s: %s", image, oci.AsError(err).Message)
	}
	g := &graph{cfg: cfg, log: slog.New(slog.DiscardHandler)}
	u := cfg.Upstreams[slices.IndexFunc(cfg.Upstreams, func(u config.Upstream) bool { return u.Name == target.Upstream })]
	if u.Kind == config.KindLocal {
		return nil, fmt.Errorf("%s: an upstream of kind local exists only in a running dray; pull the image through dray, and check an archive of it", image)
	}
	reg, err := registries.Connect(u, func() (*ecr.Session, error) { return g.awsSession(ctx) }, g.log)
	if err != nil {
		return nil, err
	}
	from := remote{reg.Source, upstream.Repo{Name: oci.JoinRepo(u.RepositoryPrefix, target.Repo)}}
	o := &opened{
		blobs: from, close: reg.Transport.CloseIdleConnections,
		name: pipeline.Name{Upstream: u.Name, Repository: target.Repo, Tag: ref.Tag},
	}
	if o.root, err = from.source.Manifest(ctx, from.repo, ref, oci.AnyManifest()); err != nil {
		o.close()
		return nil, fmt.Errorf("%s: %s", image, oci.AsError(err).Message)
	}
	return o, nil
}

func printJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// printReport prints a report for people. The findings that reject the image come first, as in the
// report.
func printReport(out io.Writer, r *pipeline.Report) {
	verdict := "would pass"
	if !r.Pass {
		verdict = "would be rejected"
	}
	image := cmp.Or(r.Repository, "the image")
	if r.Tag != "" {
		image += ":" + r.Tag
	}
	fmt.Fprintf(out, "%s (%s) %s the checks %s\n", image, oci.Short(r.Digest), strings.Replace(verdict, "rejected", "rejected by", 1), r.Checks)
	for _, f := range r.Findings {
		word := string(f.Mode)
		if f.Waived != "" {
			word = "waived"
		}
		fmt.Fprintf(out, "\n%s  %s/%s  %s\n", word, f.Stage, f.Rule, f.What)
		if place := f.Where.String(); place != "" {
			fmt.Fprintf(out, "  where        %s\n", place)
		}
		if f.Fix != "" {
			fmt.Fprintf(out, "  what to do   %s\n", f.Fix)
		}
		if f.Waived != "" {
			fmt.Fprintf(out, "  waived       %s\n", f.Waived)
		}
		fmt.Fprintf(out, "  fingerprint  %s\n", f.Fingerprint)
	}
	for _, u := range r.Unknowns {
		fmt.Fprintf(out, "\nunknown (%s)  %s  %s\n", u.OnError, u.Stage, u.Why)
	}
	if r.More > 0 {
		fmt.Fprintf(out, "\nand %d more\n", r.More)
	}
}
