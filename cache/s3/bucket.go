package s3

import (
	"cmp"
	"context"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"

	"dray/cache"
)

// Address says which bucket to use, and how to reach it.
type Address struct {
	// Bucket is the name of the bucket. All keys begin with Prefix, which is empty or ends in a slash.
	Bucket, Prefix string
	// Region is the region of the bucket. Empty means the region of the AWS configuration.
	Region string
	// Endpoint is the URL of the store; empty means Amazon S3.
	Endpoint string
	// PathStyle puts the name of the bucket into the path of a request instead of its host.
	PathStyle bool
	// RoleARN is a role to assume; empty means the identity of the AWS configuration.
	RoleARN string
}

// transport returns the transport of the SDK, but with more idle connections to one host, because
// large blobs are read and written in many requests.
func transport() *http.Transport {
	t := awshttp.NewBuildableClient().GetTransport()
	t.MaxIdleConns, t.MaxIdleConnsPerHost, t.DisableCompression = idleConnections, idleConnections, true
	return t
}

const idleConnections = 64

// client makes a client of S3 that does not retry. Making it sends no request.
func (a Address) client(cfg aws.Config, t *http.Transport) *s3.Client {
	cfg = cfg.Copy()
	cfg.Region = cmp.Or(a.Region, cfg.Region)
	if a.Endpoint != "" {
		cfg.Region = cmp.Or(cfg.Region, "us-east-1") // to sign requests for other stores, any region will do
	}
	if a.RoleARN != "" {
		cfg.Credentials = aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(sts.NewFromConfig(cfg), a.RoleARN, func(r *stscreds.AssumeRoleOptions) {
			r.RoleSessionName = "dray"
		}))
	}
	return s3.NewFromConfig(cfg, func(o *s3.Options) {
		o.UsePathStyle = a.PathStyle
		if a.Endpoint != "" {
			o.BaseEndpoint = &a.Endpoint
		}
		o.Retryer = aws.NopRetryer{}
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired // not all stores support these checksums
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired // the cache verifies digests
		o.DisableLogOutputChecksumValidationSkipped = true
		o.HTTPClient = &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // a redirect would need another signature
		}}
	})
}

// [below] is the text that follows Address.Prefix in every key.
const below = "cache/"

// key returns the key of a blob. The digest comes early in the key, because S3 spreads the load by
// prefixes of keys
// (https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance.html).
func (a Address) key(d digest.Digest) *string {
	return aws.String(a.Prefix + below + d.Algorithm().String() + "/" + d.Encoded())
}

// Content is a blob on disk. [disk.Blob] implements it.
type Content interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// Options of a Bucket.
type Options struct {
	Address
	// Config has the credentials. It is not changed.
	Config aws.Config
	// KMSKey is the key with which S3 encrypts new objects; empty means the bucket's default.
	KMSKey string
	// MaxAge is the age at which the bucket's lifecycle deletes an object. An object that is still in
	// use is written again at three quarters of that age. Zero means that objects do not expire.
	MaxAge time.Duration
	// Content opens a blob on disk. It returns an error that wraps cache.ErrNotFound if the disk does
	// not hold the blob.
	Content func(d digest.Digest) (Content, error)
	// Writers is how many blobs are written at once. Zero means 4.
	Writers int
	// Queue is how many blobs may wait to be written. Zero means 4096.
	Queue int
	// Patience bounds the wait for the answer to a read, and for the next byte of its body. If the
	// bucket takes longer, the cache asks the origin instead. Zero means 2 s.
	Patience time.Duration
	// Logger gets a line when a breaker opens or closes, when the bucket sends wrong bytes, and when
	// Run drops a blob. Nil discards these lines.
	Logger *slog.Logger
}

// Bucket is a [cache.Tier] in a bucket. All methods may be called concurrently. Run writes the
// blobs that Keep was called for.
type Bucket struct {
	o      Options
	api    *s3.Client
	conns  *http.Transport
	seen   *seen
	queue  *queue
	reads  *breaker
	writes *breaker
	m      *metrics
}

var _ cache.Tier = (*Bucket)(nil)

// New returns a Bucket. Making it sends no request.
func New(o Options) *Bucket {
	o.Writers, o.Queue, o.Patience = cmp.Or(o.Writers, 4), cmp.Or(o.Queue, 4096), cmp.Or(o.Patience, 2*time.Second)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	conns := transport()
	b := &Bucket{o: o, api: o.client(o.Config, conns), conns: conns, seen: newSeen(), queue: newQueue(o.Queue)}
	b.reads = &breaker{what: "read from", log: o.Logger, bucket: o.Bucket}
	b.writes = &breaker{what: "written to", log: o.Logger, bucket: o.Bucket}
	b.m = newMetrics(b)
	return b
}

// Collectors returns the metrics of the bucket.
func (b *Bucket) Collectors() []prometheus.Collector { return b.m.collectors() }

// CloseIdleConnections closes the connections that no request uses.
func (b *Bucket) CloseIdleConnections() { b.conns.CloseIdleConnections() }

// Wrong implements [cache.Tier].
func (b *Bucket) Wrong(d digest.Digest) {
	b.m.wrong.Inc()
	b.seen.set(d, sighting{wrong: true})
	b.o.Logger.Warn("the bucket sent wrong bytes; dray fetches the blob from its upstream and replaces the object", "digest", d, "bucket", b.o.Bucket)
}

// [repeated] makes the SDK retry a request. It is for writes, because nobody waits for them.
func repeated(o *s3.Options) {
	o.Retryer = retry.NewStandard(func(r *retry.StandardOptions) { r.MaxAttempts, r.MaxBackoff = 3, 2*time.Second })
}

// [within] bounds the time of a request.
func within(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, limit, errSlow)
}
