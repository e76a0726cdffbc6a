package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"dray/cmd/dray/imagelist"
	"dray/cmd/dray/usage"
	"dray/mirror/admin/api"
)

const (
	// warmAtOnce bounds how many images the command requests at a time.
	warmAtOnce = 4
	// maxListBytes bounds the size of a file that names images.
	maxListBytes = 8 << 20
	// allPlatforms is the value of --platform for everything that an index refers to.
	allPlatforms = "all"
)

// warmFlags are the flags of dray warm.
type warmFlags struct {
	files, platforms, arguments []string
}

func warmCommand(in Options) *cobra.Command {
	var f warmFlags
	var cmd *cobra.Command
	cmd = in.operate(&cobra.Command{
		Use:   "warm [NAME]... [-f FILE]...",
		Short: "Fetch images into the cache before clients pull them",
		Long: `warm makes a running dray fetch images, so that clients that pull them later do
not wait for a registry. Write NAME as clients write it. Each FILE is one of

  a list      one reference on each line; # begins a comment
  YAML        every image key: a Compose file, manifests of Kubernetes, values of
              a Helm chart, in one or more documents. Variables, such as $TAG in
              a Compose file, come from the environment. warm leaves out services
              of Compose that have a build section
  Dockerfile  images that a build pulls: FROM, COPY --from, RUN --mount=from and
              syntax

warm recognises the kind by the content. The file - is the standard input, which
warm also reads if there is no NAME and no FILE. In YAML and Dockerfiles, a name
without a registry belongs to Docker Hub.

If an image has several platforms, warm fetches the parts for one platform: Linux
on the processor of this machine, unless the file or --platform names others. It
does not fetch parts that are in the cache. dray asks the registry about a tag if
its last answer is older than tags.fresh.

warm prints a line for each image, and a progress bar if standard error is a
terminal. The exit code is 0 only if all parts of all images are in the cache.`,
		Example: "  dray warm docker.io/library/alpine:3 ecr/team/app:1\n  dray warm -f compose.yaml -f Dockerfile --platform linux/amd64,linux/arm64\n" +
			"  helm template ./chart | dray warm",
		Args: cobra.ArbitraryArgs,
	}, func(ctx context.Context, o *operator, args []string) error {
		images, problems, err := f.read(in, cmd.InOrStdin(), args)
		if err != nil {
			return err
		}
		return o.warm(ctx, images, problems)
	})
	cmd.Flags().StringArrayVarP(&f.files, "file", "f", nil, "file that names images; - is the standard input; may be repeated")
	cmd.Flags().StringSliceVar(&f.platforms, "platform", nil, "platforms of the clients, such as linux/arm64, or all (default: linux on this machine's processor)")
	cmd.Flags().StringArrayVar(&f.arguments, "build-arg", nil, "NAME=VALUE of an ARG in a Dockerfile; may be repeated")
	return cmd
}

// toWarm is an image to fetch, with the platforms to fetch; no platforms means all.
type toWarm struct {
	name      string
	platforms []string
}

// read returns the images of the arguments and files, each once, and the problems in the files.
func (f warmFlags) read(in Options, stdin io.Reader, args []string) (images []toWarm, problems []string, err error) {
	o := imagelist.Options{Host: platforms.Format(linuxHere()), Environment: in.Environ, Arguments: map[string]string{}}
	if o.Targets, err = f.targets(); err != nil {
		return nil, nil, err
	}
	for _, a := range f.arguments {
		name, value, ok := strings.Cut(a, "=")
		if !ok {
			return nil, nil, fmt.Errorf("--build-arg %s: not of the form NAME=VALUE; %w", a, usage.Err)
		}
		o.Arguments[name] = value
	}
	plan := &warmPlan{targets: o.Targets, at: map[string]int{}}
	files := f.files
	for _, a := range args {
		if a == "-" {
			files = append(files, a)
			continue
		}
		plan.add(imagelist.Image{Name: a})
	}
	if len(args)+len(files) == 0 {
		if isTerminal(stdin) {
			return nil, nil, fmt.Errorf("name an image or a file with -f; %w", usage.Err)
		}
		files = []string{"-"}
	}
	for _, path := range files {
		text, err := readFile(path, stdin)
		if err != nil {
			return nil, nil, err
		}
		named, bad := imagelist.Read(text, o)
		for _, err := range bad {
			plan.problem(path, err)
		}
		for _, i := range named {
			if err := plan.add(i); err != nil {
				plan.problem(path, fmt.Errorf("line %d: %w", i.Line, err))
			}
		}
	}
	if len(plan.images)+len(plan.problems) == 0 {
		return nil, nil, errors.New("no image is named")
	}
	return plan.images, plan.problems, nil
}

// targets returns the platforms of --platform, in their usual form. An empty result means all.
func (f warmFlags) targets() (all []string, err error) {
	if slices.Contains(f.platforms, allPlatforms) {
		return nil, nil
	}
	if len(f.platforms) == 0 {
		return []string{platforms.Format(linuxHere())}, nil
	}
	for _, p := range f.platforms {
		usual, err := usualPlatform(p)
		if err != nil {
			return nil, fmt.Errorf("--platform %s: %w; %w", p, err, usage.Err)
		}
		all = append(all, usual)
	}
	return all, nil
}

// usualPlatform returns a platform in its usual form. If p names only a processor, the system is
// Linux.
func usualPlatform(p string) (string, error) {
	if !strings.Contains(p, "/") {
		p = "linux/" + p
	}
	parsed, err := platforms.Parse(p)
	if err != nil {
		return "", err
	}
	return platforms.Format(parsed), nil
}

// linuxHere returns the platform of Linux on the processor of this machine. It does so on every
// system, because containers on other systems run in a virtual machine with Linux.
func linuxHere() v1.Platform {
	return platforms.Normalize(v1.Platform{OS: "linux", Architecture: runtime.GOARCH})
}

// readFile reads a file, or the standard input for the path -.
func readFile(path string, stdin io.Reader) ([]byte, error) {
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		stdin = f
	}
	text, err := io.ReadAll(io.LimitReader(stdin, maxListBytes+1))
	if err == nil && len(text) > maxListBytes {
		err = fmt.Errorf("more than %d bytes are no file that names images", maxListBytes)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return text, nil
}

// warmPlan collects images.
type warmPlan struct {
	targets  []string
	images   []toWarm
	problems []string
	at       map[string]int // index in images, by the name of the image
}

// problem records a problem of a file.
func (p *warmPlan) problem(path string, err error) {
	if path == "-" {
		path = "standard input"
	}
	p.problems = append(p.problems, fmt.Sprintf("%s: %v", path, err))
}

// add adds an image. Its platform is i.Platform; if that is empty, its platforms are p.targets. If
// the plan has the image already, the function adds these platforms to those of the image there.
func (p *warmPlan) add(i imagelist.Image) error {
	wanted := p.targets
	if i.Platform != "" {
		one, err := usualPlatform(i.Platform)
		if err != nil {
			return fmt.Errorf("platform %s of %s: %w", i.Platform, i.Name, err)
		}
		wanted = []string{one}
	}
	n, known := p.at[i.Name]
	if !known {
		p.at[i.Name] = len(p.images)
		p.images = append(p.images, toWarm{i.Name, slices.Clone(wanted)})
		return nil
	}
	if have := &p.images[n].platforms; len(*have) == 0 || len(wanted) == 0 {
		*have = nil
	} else {
		*have = slices.Compact(slices.Sorted(slices.Values(append(*have, wanted...))))
	}
	return nil
}

// warm makes dray fetch images, and shows the progress. It returns an error if an image is not
// completely in dray afterwards, or if problems is not empty.
func (o *operator) warm(ctx context.Context, images []toWarm, problems []string) error {
	show := newWarmProgress(o, len(images))
	for _, p := range problems {
		show.problem(p)
	}
	results := make([]warmedImage, len(images))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(warmAtOnce)
	for i, image := range images {
		g.Go(func() error {
			r := warmedImage{Image: image.name, Platforms: image.platforms}
			err := ctx.Err()
			if err == nil {
				err = work(ctx, o, "warm", api.WarmRequest{Name: image.name, Platforms: image.platforms}, func(w api.Warmth) {
					r.Warmth = w
					show.advance(image.name, w)
				})
			}
			if err != nil {
				r.Error = err.Error()
			}
			results[i] = r
			if errors.Is(err, ErrUnreachable) { // requests for the other images would also fail
				return err
			}
			show.done(r)
			return nil
		})
	}
	err := g.Wait()
	show.end()
	if err != nil {
		return err
	}
	if o.json {
		if err := o.print(warmed{Images: results, Problems: append([]string{}, problems...)}, nil); err != nil {
			return err
		}
	}
	return warmFailure(results, problems)
}

// warmed is the output of dray warm with --json.
type warmed struct {
	Images []warmedImage `json:"images"`
	// Problems are the problems in the files, such as unusable names, each with its file and line.
	Problems []string `json:"problems"`
}

// warmedImage is the result for one image. If Error is empty, dray holds the whole image.
type warmedImage struct {
	// Image is the requested name, and Platforms are the requested platforms; none means all.
	Image     string   `json:"image"`
	Platforms []string `json:"platforms,omitempty"`
	api.Warmth
	Error string `json:"error,omitempty"`
}

// warmFailure returns the error of the command, or nil.
func warmFailure(results []warmedImage, problems []string) error {
	failed := 0
	for _, r := range results {
		if r.Error != "" {
			failed++
		}
	}
	var parts []string
	if failed > 0 {
		parts = append(parts, fmt.Sprintf("%d of %d images are not held as a whole", failed, len(results)))
	}
	if len(problems) > 0 {
		parts = append(parts, fmt.Sprintf("%d problems with what the files name", len(problems)))
	}
	if len(parts) == 0 {
		return nil
	}
	return errors.New(strings.Join(parts, "; "))
}
