package ecrtest

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"time"
)

// Options say what a Server is. The zero value is a usable ECR in eu-west-1.
type Options struct {
	// Quirks are the manners of the registry; the zero value means ECR().
	Quirks Quirks
	// Switches are the unverified manners; nil means DefaultSwitches().
	Switches *Switches
	// Account and Region name the default registry; "123456789012" and "eu-west-1" where empty.
	Account, Region string
	// More are further registries, found by their ECR-shaped names.
	More []RegistryID
	// Port is appended to the registry's names in proxyEndpoint, repositoryUri and realm; 0: none,
	// as with AWS.
	Port int
	// AcceptHosts are Host headers, with or without port, that mean the default registry although
	// they are not ECR-shaped. Listen adds its own addresses unless StrictHost is set. Without any,
	// every such name is refused.
	AcceptHosts []string
	// StrictHost keeps Listen from adding its addresses to AcceptHosts.
	StrictHost bool
	// TLS is served by the registry's listener where set. SelfSigned makes one; Scheme follows.
	TLS *tls.Config
	// SelfSigned serves the registry with a certificate made in memory for its ECR-shaped name,
	// localhost and 127.0.0.1.
	SelfSigned bool
	// HTTP2 offers h2 on the registry's TLS listener. Only HTTP/1.1 was ever seen on ECR.
	HTTP2 bool
	// ObjectsURL is the base of signed URLs, such as "http://127.0.0.1:9000". Listen fills it in.
	ObjectsURL string
	// ObjectsByName makes Listen put the name of AWS's bucket, with the port of the listener, into
	// signed URLs. Clients that refuse redirects from a public name to a loopback address need it;
	// DialContext finds the name.
	ObjectsByName bool
	// Clock is asked for the time, which Advance moves on; nil means time.Now.
	Clock func() time.Time
	// Logger gets one line per request; nil discards.
	Logger *slog.Logger
	// Dir holds blobs; empty means a new directory below os.TempDir that Close removes.
	Dir string
	// TokenLife and URLLife are how long tokens (12 h where 0) and signed URLs (1 h where 0) live.
	TokenLife, URLLife time.Duration
	// Principals maps access key ids to the ARN of their IAM principal. nil: every key is the user
	// "dray" of Account.
	Principals map[string]string
	// Deny are IAM denials in force from the start.
	Deny []Denial
	// PullTimeExclusions are ARNs of principals whose pulls are not recorded
	// (RegisterPullTimeUpdateExclusion).
	PullTimeExclusions []string
	// Quotas throttle operations; nil: none. DefaultQuotas has those of AWS.
	Quotas map[string]Quota
	// BlobMounting is the account setting BLOB_MOUNTING at the start.
	BlobMounting bool
	// CreateOnPush are creation templates that apply to CREATE_ON_PUSH.
	CreateOnPush []CreationTemplate
	// PullThrough are pull-through cache rules.
	PullThrough []PullThroughRule
	// Bandwidth shapes answers from the start.
	Bandwidth Bandwidth
	// Hub are the settings that only a registry with Bearer tokens reads.
	Hub HubOptions
}

// HubOptions belong to registries with Bearer tokens.
type HubOptions struct {
	// PushNeedsUser refuses pushes without credentials of Users; off: anybody may push.
	PushNeedsUser bool
	// Users maps names to passwords.
	Users map[string]string
	// PullLimit is the number of manifest GETs within six hours; 0 shows a limit of 100 and never
	// enforces it.
	PullLimit int
}

// RegistryID names a private registry.
type RegistryID struct{ Account, Region string }

// Denial takes an action away. * matches any run of characters in each field; an empty field is
// "*".
type Denial struct {
	Principal string `json:"principal"` // ARN
	Action    string `json:"action"`    // such as "ecr:PutImage"
	Resource  string `json:"resource"`  // ARN of a repository
}

// CreationTemplate is a repository creation template for CREATE_ON_PUSH.
type CreationTemplate struct {
	Prefix         string `json:"prefix"` // or "ROOT"
	TagMutability  string `json:"tagMutability"`
	EncryptionType string `json:"encryptionType"`
	KMSKey         string `json:"kmsKey"`
}

// PullThroughRule makes repositories below Prefix copies of those of an upstream registry.
type PullThroughRule struct {
	Prefix   string `json:"prefix"`
	Upstream string `json:"upstream"` // base URL, such as "http://127.0.0.1:5000"
}

func (o Options) withDefaults() Options {
	if o.Quirks.Name == "" {
		o.Quirks = ECR()
	}
	if o.Switches == nil {
		sw := DefaultSwitches()
		o.Switches = &sw
	}
	o.Account = orDefault(o.Account, "123456789012")
	o.Region = orDefault(o.Region, "eu-west-1")
	o.TokenLife = orDefault(o.TokenLife, 12*time.Hour)
	o.URLLife = orDefault(o.URLLife, time.Hour)
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

func orDefault[T comparable](v, fallback T) T {
	var zero T
	if v == zero {
		return fallback
	}
	return v
}

// check refuses options that no registry can have.
func (o Options) check() error {
	for _, id := range append([]RegistryID{{o.Account, o.Region}}, o.More...) {
		if !registryHost.MatchString(hostName(id.Account, id.Region)) {
			return fmt.Errorf("options: account %q and region %q name no registry", id.Account, id.Region)
		}
	}
	return nil
}

// bucketHost is the name of the bucket that signed URLs of real ECR point to.
func bucketHost(region string) string {
	return "prod-" + region + "-starport-layer-bucket.s3." + region + ".amazonaws.com"
}

func hostName(account, region string) string {
	return account + ".dkr.ecr." + region + ".amazonaws.com"
}
