// Package runtime judges how an image would run: its user, its variables, its ports, and the
// programs in it that run with more rights than the user who starts them. It can also refuse images
// that were built with ADD from a URL.
package runtime

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"dray/mirror/pattern"
	"dray/mirror/pipeline"
)

// Name of the stage.
const Name = "runtime"

// version must increase when a change of the code affects which images pass, or what the facts
// about layers say.
const version = 3

// Config holds the rules.
type Config struct {
	// NonRoot requires a user other than root. The name of a user is looked up in the image's
	// /etc/passwd.
	NonRoot bool
	// Environment refuses variables that have a value and whose names look like the names of secrets.
	// Harmless has patterns of allowed names.
	Environment bool
	Harmless    []string
	// Ports are the ports that images may expose, such as "8080", "8080/tcp" or "1024-65535"; empty
	// allows all.
	Ports []string
	// SetUID refuses files with the set-user-ID or set-group-ID bit, or with capabilities.
	// SetUIDAllowed has patterns of the paths of allowed files, without a leading slash.
	SetUID        bool
	SetUIDAllowed []string
	// AddFromURL refuses images whose history has ADD with a URL.
	AddFromURL bool
}

// Stage implements [pipeline.LayerStage] and [pipeline.ImageStage].
type Stage struct {
	config Config
	ports  []portRange
}

var (
	_ pipeline.LayerStage = (*Stage)(nil)
	_ pipeline.ImageStage = (*Stage)(nil)
)

// New makes a stage. The error joins all problems with the configuration.
func New(c Config) (*Stage, error) {
	s := &Stage{config: c}
	var errs []error
	for _, text := range c.Ports {
		r, err := parsePorts(text)
		if err != nil {
			errs = append(errs, err)
		}
		s.ports = append(s.ports, r)
	}
	return s, errors.Join(errs...)
}

// Name implements pipeline.Stage.
func (*Stage) Name() string { return Name }

// Revision implements pipeline.Stage. It does not depend on the configuration, because the facts
// about layers do not depend on it. So no layer is scanned again when the configuration changes.
func (*Stage) Revision() string { return pipeline.Revision(version, nil) }

// CheckImage implements pipeline.ImageStage.
func (s *Stage) CheckImage(_ context.Context, img *pipeline.Image) ([]pipeline.Finding, error) {
	var found []pipeline.Finding
	var errs []error
	for _, m := range img.Images() {
		if m.Config == nil {
			continue
		}
		c := check{stage: s, img: img, m: m}
		c.environment()
		c.exposed()
		c.history()
		if s.config.NonRoot || s.config.SetUID {
			errs = append(errs, c.files())
		}
		found = append(found, c.found...)
	}
	return found, errors.Join(errs...)
}

// check is the check of one image.
type check struct {
	stage *Stage
	img   *pipeline.Image
	m     *pipeline.Manifest
	found []pipeline.Finding
}

func (c *check) add(rule, fix, format string, args ...any) {
	c.addAt(c.img.Place(c.m), rule, fix, format, args...)
}

func (c *check) addAt(where pipeline.Place, rule, fix, format string, args ...any) {
	c.found = append(c.found, pipeline.Finding{Rule: rule, What: fmt.Sprintf(format, args...), Where: where, Fix: fix})
}

// secretName matches names of variables that are likely to hold a secret.
var secretName = regexp.MustCompile(`(?i)(^|_)(pass|passwd|password|pwd|secret|token|api_?key|private_?key|access_?key|secret_?key|auth_?key|credentials?)(_?[0-9])?(_|$)`)

// notSecret matches names of variables that have the location or a property of a secret.
var notSecret = regexp.MustCompile(`(?i)_(file|path|dir|url|uri|name|id|type|ttl|timeout|length|expiry|header|prefix|policy|endpoint|issuer|version|enabled)$`)

func (c *check) environment() {
	if !c.stage.config.Environment {
		return
	}
	for _, v := range c.m.Config.Config.Env {
		name, value, _ := strings.Cut(v, "=")
		harmless := pattern.Any(c.stage.config.Harmless, name)
		if value == "" || harmless || !secretName.MatchString(name) || notSecret.MatchString(name) {
			continue
		}
		c.add("environment", "set it when you start the container", "the variable %s looks like a secret and has a value", name)
	}
}

// portRange is a range of ports that images may expose, or that an image exposes.
type portRange struct {
	from, to int
	protocol string // empty in a rule allows any
}

func parsePorts(text string) (r portRange, err error) {
	ports, protocol, _ := strings.Cut(text, "/")
	from, to, isRange := strings.Cut(ports, "-")
	if !isRange {
		to = from
	}
	r.protocol = protocol
	var err1, err2 error
	r.from, err1 = strconv.Atoi(from)
	r.to, err2 = strconv.Atoi(to)
	if err1 != nil || err2 != nil || r.from < 0 || r.to > 65535 || r.from > r.to || !slices.Contains([]string{"", "tcp", "udp", "sctp"}, protocol) {
		return r, fmt.Errorf("runtime: %q is not a port; write one like 8080, 8080/tcp or 1024-65535", text)
	}
	return r, nil
}

func (c *check) exposed() {
	if len(c.stage.ports) == 0 {
		return
	}
	for port := range c.m.Config.Config.ExposedPorts {
		got, err := parsePorts(port)
		if got.protocol == "" {
			got.protocol = "tcp"
		}
		fits := func(r portRange) bool {
			return r.from <= got.from && got.to <= r.to && (r.protocol == "" || r.protocol == got.protocol)
		}
		if err != nil || !slices.ContainsFunc(c.stage.ports, fits) {
			c.add("port", "expose only "+strings.Join(c.stage.config.Ports, ", "), "the image exposes port %s", port)
		}
	}
}

// addFromURL matches ADD with a URL or a Git repository among its sources, in the forms that
// builders write into the history.
var addFromURL = regexp.MustCompile(`(?:^|\(nop\))\s*ADD\s(?:.*[\s"])?(?:https?://|git@|git://|ssh://)`)

func (c *check) history() {
	if !c.stage.config.AddFromURL {
		return
	}
	for i, h := range c.m.Config.History {
		if addFromURL.MatchString(h.CreatedBy) {
			c.add("add-url", "download it in a build step that verifies its checksum", "step %d of the history adds content from a URL", i+1)
		}
	}
}

// files checks the image's user, and the files that give a program more rights. It knows the files
// by the facts about the layers.
func (c *check) files() error {
	fs := newRootFS()
	for i, l := range c.m.Layers {
		if l.Foreign && !l.Seen {
			continue
		}
		var f facts
		if seen, err := l.Facts(Name, &f); err != nil || !seen {
			return fmt.Errorf("layer %d of %s was not read, so its files are unknown", i+1, c.m.Digest)
		}
		if err := fs.apply(f, i); err != nil {
			return fmt.Errorf("layer %d of %s: %w", i+1, c.m.Digest, err)
		}
	}
	if c.stage.config.NonRoot {
		c.user(fs)
	}
	if c.stage.config.SetUID {
		c.setUID(fs)
	}
	return nil
}

// Values of node.special.
const (
	bySetID        = "s" // the set-user-ID or set-group-ID bit
	byCapabilities = "c" // capabilities in an extended attribute
)

func (c *check) setUID(fs *rootFS) {
	special := fs.tree.specials()
	for _, name := range slices.Sorted(maps.Keys(special)) {
		if pattern.Any(c.stage.config.SetUIDAllowed, name) {
			continue
		}
		where := c.img.LayerPlace(c.m, special[name].layer)
		where.Path = name
		if special[name].special == byCapabilities {
			c.addAt(where, "setuid", "remove them with setcap -r", "a program started from this file has capabilities of the kernel")
			continue
		}
		c.addAt(where, "setuid", "clear the bit with chmod a-s", "a program started from this file has the rights of its owner or group")
	}
	if fs.dropped <= classSpecial {
		c.add("setuid", "clear the bits with chmod a-s", "there are more files with these bits, which are not listed")
	}
}

// user checks the name of the image's user. Like container runtimes, it first looks in /etc/passwd
// for a user with this name, even if the name is a number. It uses a number as an ID only if no
// user in /etc/passwd has it as a name. Unlike runtimes, it always treats the name root and the
// number 0 as root.
func (c *check) user(fs *rootFS) {
	const fix = "set USER to a number other than 0"
	name, _, _ := strings.Cut(c.m.Config.Config.User, ":")
	users, known := fs.passwd()
	uid, err := strconv.Atoi(name)
	id, listed := userID(users, name)
	windows := c.m.Config.OS == "windows"
	switch {
	case windows && (name == "" || windowsAdministrator(name)):
		c.add("user", "set USER to ContainerUser, or to a user that the image adds", "the image runs as an administrator: its user is %s", cmp.Or(name, "the one of its base image"))
	case name == "":
		c.add("user", fix, "the image runs as root, because it sets no user")
	case name == "root", err == nil && uid == 0:
		c.add("user", fix, "the image runs as root: its user is %s", name)
	case listed && id == 0:
		c.add("user", fix, "the image runs as root: the user %s has the ID 0", name)
	case !known:
		c.add("user", fix+", and make /etc/passwd a regular file", "unknown user %s: /etc/passwd is not a regular file, or too long", name)
	case listed, err == nil && uid > 0 && uid <= math.MaxInt32:
	case windows && err != nil: // no file of a layer lists the users of Windows
	default:
		c.add("user", fix, "unknown user %s: /etc/passwd does not have it", name)
	}
}

// windowsAdministrator reports whether a user of Windows, with or without a domain, has all rights
// in a container.
func windowsAdministrator(name string) bool {
	name = strings.ToLower(name[strings.LastIndexByte(name, '\\')+1:])
	return slices.Contains([]string{"containeradministrator", "administrator", "administrators", "system", "localsystem"}, name)
}
