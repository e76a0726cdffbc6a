package ecrtest

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
)

// Server serves private registries of ECR, or one registry of another kind (Options.Quirks). Its
// handlers may be called concurrently.
type Server struct {
	opts     Options
	switches atomic.Pointer[Switches]
	dialect  atomic.Pointer[Dialect]
	dir      string
	ownDir   bool
	upstream *http.Client // sends the requests of pull-through rules
	signKey  []byte

	faults   *faults
	journal  *journal
	throttle *throttle

	uploadsStarted, uploadsFinished atomic.Int64

	mu         sync.Mutex // guards all fields below; never held during I/O
	skew       time.Duration
	registries map[RegistryID]*registry
	uploads    map[string]*upload
	objects    map[string]*layer // by object name
	tokens     map[string]*token
	tokenOrder []string // the keys of the map tokens, oldest first; at most maxTokens
	denied     []Denial
	sessions   map[string]session   // sessions of assumed roles, by access key
	looked     map[string]time.Time // pull-through: when each tag or digest was last looked up
	metrics    []Datum
	pullsUsed  int
	pullWindow time.Time

	// Every signed URL names the epoch in which it was signed. ExpireURLs and ExpireSigner begin a new
	// epoch.
	urlEpoch   int // the present epoch
	urlExpired int // URLs of epochs before this one have expired
	sessionEnd int // URLs of epochs before this one were signed by a session that has ended
}

// New returns a Server. It starts nothing. The caller has to call Close.
func New(opts Options) (*Server, error) {
	opts = opts.withDefaults()
	if err := opts.check(); err != nil {
		return nil, err
	}
	s := &Server{
		opts: opts, dir: opts.Dir, signKey: randomBytes(32),
		registries: map[RegistryID]*registry{}, uploads: map[string]*upload{}, objects: map[string]*layer{}, tokens: map[string]*token{},
		denied: opts.Deny, looked: map[string]time.Time{}, sessions: map[string]session{}, upstream: &http.Client{Transport: &http.Transport{}},
	}
	s.SetSwitches(*opts.Switches)
	s.SetDialect(opts.Dialect)
	s.faults = newFaults(opts.Bandwidth)
	s.journal = newJournal()
	s.throttle = newThrottle(opts.Quotas, s.now)
	for _, id := range append([]RegistryID{{opts.Account, opts.Region}}, opts.More...) {
		g := &registry{account: id.Account, region: id.Region, repos: map[string]*repository{}, settings: map[string]string{}}
		g.settings["BLOB_MOUNTING"] = "DISABLED"
		if opts.BlobMounting {
			g.settings["BLOB_MOUNTING"] = "ENABLED"
		}
		s.registries[id] = g
	}
	if s.dir == "" {
		dir, err := os.MkdirTemp("", "ecrtest-")
		if err != nil {
			return nil, fmt.Errorf("make blob directory: %w", err)
		}
		s.dir, s.ownDir = dir, true
	}
	for _, sub := range []string{"blobs", "uploads"} {
		if err := os.MkdirAll(filepath.Join(s.dir, sub), 0o755); err != nil {
			return nil, fmt.Errorf("make blob directory: %w", err)
		}
	}
	return s, nil
}

// Close removes the files of unfinished uploads, and all other files unless Options.Dir is set. All
// requests must have ended.
func (s *Server) Close() error {
	s.mu.Lock()
	open := make([]*upload, 0, len(s.uploads))
	for _, u := range s.uploads {
		open = append(open, u)
	}
	clear(s.uploads)
	s.mu.Unlock()
	s.upstream.CloseIdleConnections()
	for _, u := range open {
		u.discard()
	}
	if s.ownDir {
		return os.RemoveAll(s.dir)
	}
	return nil
}

// Switches returns the switches in force.
func (s *Server) Switches() Switches { return *s.switches.Load() }

// SetSwitches sets the switches for later requests.
func (s *Server) SetSwitches(sw Switches) { s.switches.Store(&sw) }

// HostName returns the ECR-shaped name of the default registry, with Options.Port if it is set.
func (s *Server) HostName() string { return s.withPort(hostName(s.opts.Account, s.opts.Region)) }

func (s *Server) withPort(host string) string {
	if s.opts.Port != 0 {
		return fmt.Sprintf("%s:%d", host, s.opts.Port)
	}
	return host
}

func (s *Server) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nowLocked()
}

func (s *Server) nowLocked() time.Time { return s.opts.Clock().Add(s.skew) }

func (s *Server) blobPath(d digest.Digest) string {
	return filepath.Join(s.dir, "blobs", d.Algorithm().String()+"-"+d.Encoded())
}

// defaultRegistry returns the registry of Options.Account and Options.Region.
func (s *Server) defaultRegistry() *registry {
	return s.registries[RegistryID{s.opts.Account, s.opts.Region}]
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails since Go 1.24
	return b
}

func newUUID() string {
	b := randomBytes(16)
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	h := hex.EncodeToString(b)
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
