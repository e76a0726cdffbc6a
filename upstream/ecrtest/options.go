package ecrtest

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"time"
)

// Options configure a Server. The zero value is an ECR in eu-west-1.
type Options struct {
	// Quirks are the known behaviour of the registry; the zero value means ECR().
	Quirks Quirks
	// Switches choose the behaviour for which the evidence is missing or contradictory; nil means
	// DefaultSwitches().
	Switches *Switches
	// Account and Region name the default registry; empty means "123456789012" and "eu-west-1".
	Account, Region string
	// More are further registries. A request selects one by its ECR-shaped name in the Host header.
	More []RegistryID
	// Port is appended to the registry's names in proxyEndpoint, repositoryUri and realm. 0 means no
	// port, as with AWS.
	Port int
	// AcceptHosts are Host headers, with or without port, that name the default registry although they
	// are not ECR-shaped. The server refuses other names that are not ECR-shaped. Listen adds its own
	// addresses, unless StrictHost is set.
	AcceptHosts []string
	// StrictHost keeps Listen from adding its addresses to AcceptHosts.
	StrictHost bool
	// TLS is the configuration of the registry's listener. If TLS is nil, the listener uses the
	// certificate of SelfSigned, or plain HTTP if SelfSigned is false.
	TLS *tls.Config
	// SelfSigned makes the registry and the object store use a certificate that is made in memory,
	// unless TLS is set. The certificate is valid for localhost, 127.0.0.1 and ::1, and for the AWS
	// names of the registries and of the object store.
	SelfSigned bool
	// HTTP2 offers h2 on the listeners with TLS. Only HTTP/1.1 has been seen at ECR.
	HTTP2 bool
	// ObjectsURL is the base of signed URLs, such as "http://127.0.0.1:9000". Listen sets it if
	// it is empty.
	ObjectsURL string
	// ObjectsByName makes Listen use the name of AWS's bucket in signed URLs, with the port of the
	// object store. Clients that refuse redirects from a public name to a loopback address need this.
	// DialContext resolves the name.
	ObjectsByName bool
	// Clock returns the time; nil means time.Now. To this time, the server adds all durations
	// passed to Advance.
	Clock func() time.Time
	// Logger receives one line per request; nil discards.
	Logger *slog.Logger
	// Dir is the directory for blobs; empty means a new directory below os.TempDir that Close removes.
	Dir string
	// TokenLife and URLLife are the lives of tokens and signed URLs. 0 means 12 h and 1 h.
	TokenLife, URLLife time.Duration
	// Principals maps access key ids to the ARN of their IAM principal. If Principals is nil, every
	// key that does not begin with ASIA belongs to the user "dray" of Account.
	Principals map[string]string
	// ExternalIDs maps the ARN of a role to the external id that its trust policy requires.
	ExternalIDs map[string]string
	// Deny are the IAM denials at the start.
	Deny []Denial
	// PullTimeExclusions are ARNs of principals whose pulls the server does not record
	// (RegisterPullTimeUpdateExclusion).
	PullTimeExclusions []string
	// Quotas limit operations; nil means no limits. DefaultQuotas returns the quotas of AWS.
	Quotas map[string]Quota
	// BlobMounting is the account setting BLOB_MOUNTING at the start.
	BlobMounting bool
	// CreateOnPush are creation templates for CREATE_ON_PUSH.
	CreateOnPush []CreationTemplate
	// PullThrough are pull-through cache rules.
	PullThrough []PullThroughRule
	// Bandwidth is the bandwidth at the start.
	Bandwidth Bandwidth
	// Hub are the settings of a registry with Bearer tokens.
	Hub HubOptions
	// Dialect is the dialect at the start. It is for a registry whose Quirks are Other().
	Dialect Dialect
}

// HubOptions configure a registry with Bearer tokens.
type HubOptions struct {
	// PushNeedsUser limits pushes to clients that send a name and password of the map Users. Without
	// PushNeedsUser, anybody may push.
	PushNeedsUser bool
	// Users maps names to passwords.
	Users map[string]string
	// PullLimit is the number of manifest GETs that the server allows in six hours. With 0, the
	// headers show a limit of 100, but the server does not enforce it.
	PullLimit int
}

// RegistryID names a private registry.
type RegistryID struct{ Account, Region string }

// Denial denies an action. In each field, * matches any characters. An empty field means "*".
type Denial struct {
	Principal string `json:"principal"` // ARN
	Action    string `json:"action"`    // such as "ecr:PutImage"
	Resource  string `json:"resource"`  // ARN of a repository
}

// CreationTemplate is a repository creation template for CREATE_ON_PUSH.
type CreationTemplate struct {
	Prefix         string `json:"prefix"` // "ROOT" means every repository that no other template matches
	TagMutability  string `json:"tagMutability"`
	EncryptionType string `json:"encryptionType"`
	KMSKey         string `json:"kmsKey"`
}

// PullThroughRule says that the repositories below Prefix are copies of the repositories of an
// upstream registry.
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

func (o Options) check() error {
	for _, id := range append([]RegistryID{{o.Account, o.Region}}, o.More...) {
		if !registryHost.MatchString(hostName(id.Account, id.Region)) {
			return fmt.Errorf("options: account %q and region %q name no registry", id.Account, id.Region)
		}
	}
	return nil
}

// bucketHost returns the name of the bucket in signed URLs of the real ECR.
func bucketHost(region string) string {
	return "prod-" + region + "-starport-layer-bucket.s3." + region + ".amazonaws.com"
}

func hostName(account, region string) string {
	return account + ".dkr.ecr." + region + ".amazonaws.com"
}
