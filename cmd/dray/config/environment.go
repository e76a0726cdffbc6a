package config

import (
	"errors"
	"reflect"

	"github.com/caarlos0/env/v11"

	"dray/upstream/auth"
)

// Environment holds variables that override the file. The variables without `DRAY_` in their names
// are enough to configure a working proxy. A variable with an empty value counts as not set. The
// first listener is the first of `listeners`.
type Environment struct {
	// The PEM file with the certificate of the first listener.
	TLSCertificate *string `env:"TLS_CERTIFICATE"`
	// The PEM file with the private key of the first listener.
	TLSPrivateKey *string `env:"TLS_PRIVATE_KEY"`
	// The host name of an Amazon ECR registry, such as
	// `123456789012.dkr.ecr.eu-west-1.amazonaws.com`. Names on the first listener that select no
	// other upstream go to it. Clients may push to it. With `public.ecr.aws`, clients can only pull,
	// because dray has no credentials for it by default.
	ECRRegistry *string `env:"ECR_REGISTRY"`
	// The name that clients use for the first listener, `host[:port]` or a URL; see `external_url`.
	Registry *string `env:"REGISTRY"`
	// The port of the first listener.
	Port *Port `env:"PORT"`
	// The AWS region of CloudWatch; see `cloudwatch.region`. Without a region, dray sends no pull
	// counts to CloudWatch.
	Region *string `env:"REGION"`
	// The URL of the OpenTelemetry collector that gets traces; see `traces.endpoint`. dray ignores
	// values that are no `http` or `https` URL: they are for programs that send by gRPC.
	TracesEndpoint *string `env:"OTEL_EXPORTER_OTLP_ENDPOINT"`

	// The configuration file; `--config` overrides it.
	Config *string `env:"DRAY_CONFIG"`
	// The address of the first listener; `PORT` overrides its port.
	Address *string `env:"DRAY_ADDRESS"`
	// If `true`, anybody who can connect to the first listener may push.
	AllowAnonymousPush *bool `env:"DRAY_ALLOW_ANONYMOUS_PUSH"`
	// A `host:port` that dray dials for `ECR_REGISTRY`: a VPC endpoint, or a stand-in for tests.
	ECRAddress *string `env:"DRAY_ECR_ADDRESS"`
	// A PEM file with authorities that dray trusts for `ECR_REGISTRY` besides the authorities of the
	// system.
	ECRCAFile *string `env:"DRAY_ECR_CA_FILE"`
	// The directory of the cache.
	CacheDirectory *string `env:"DRAY_CACHE_DIRECTORY"`
	// The directory of the queue of pushes, the lists of hosted repositories, and the pins.
	StateDirectory *string `env:"DRAY_STATE_DIRECTORY"`
	// The most bytes on disk.
	CacheMaxBytes *Bytes `env:"DRAY_CACHE_MAX_BYTES"`
	// The bytes of the file system that dray leaves free.
	CacheMinFreeBytes *Bytes `env:"DRAY_CACHE_MIN_FREE_BYTES"`
	// The memory for small content.
	CacheMemoryBytes *Bytes `env:"DRAY_CACHE_MEMORY_BYTES"`
	// The address of the Redis for small facts; see `metadata.url`.
	MetadataURL *SecretURL `env:"DRAY_METADATA_URL"`
	// The Redis password.
	MetadataPassword *auth.Secret `env:"DRAY_METADATA_PASSWORD"`
	// The address by which other members of a fleet reach this dray; see `fleet.advertise`.
	FleetAdvertise *string `env:"DRAY_FLEET_ADVERTISE"`
	// The address of the admin listener, or `off`.
	AdminAddress *string `env:"DRAY_ADMIN_ADDRESS"`
	// If `true`, anybody who can connect to the admin listener may do everything.
	AdminAllowAnonymous *bool `env:"DRAY_ADMIN_ALLOW_ANONYMOUS"`
	// The lowest level that dray writes to the log.
	LogLevel *LogLevel `env:"DRAY_LOG_LEVEL"`
	// The format of the log.
	LogFormat *LogFormat `env:"DRAY_LOG_FORMAT"`
	// If `true`, dray writes a line for every request to the log.
	LogAccess *bool `env:"DRAY_LOG_ACCESS"`
}

// variables returns the variables that are not empty. Compose files and unit files often pass on a
// variable without a value.
func variables(environ []string) map[string]string {
	vars := env.ToMap(environ)
	for name, value := range vars {
		if value == "" {
			delete(vars, name)
		}
	}
	return vars
}

func readEnvironment(vars map[string]string) (Environment, Problems) {
	var over Environment
	readers := map[reflect.Type]env.ParserFunc{}
	for _, e := range enums() {
		readers[e.typ] = func(text string) (any, error) {
			return reflect.ValueOf(text).Convert(e.typ).Interface(), oneOf(e.typ, text)
		}
	}
	err := env.ParseWithOptions(&over, env.Options{Environment: vars, FuncMap: readers})
	if err == nil {
		return over, nil
	}
	all, ok := errors.AsType[env.AggregateError](err)
	if !ok {
		return over, Problems{{Origin: "environment", Message: err.Error()}}
	}
	var problems Problems
	for _, err := range all.Errors {
		bad, ok := errors.AsType[env.ParseError](err)
		if !ok {
			problems = append(problems, Problem{Origin: "environment", Message: err.Error()})
			continue
		}
		field, _ := reflect.TypeFor[Environment]().FieldByName(bad.Name)
		message := bad.Err.Error()
		if field.Type == reflect.TypeFor[*bool]() {
			message = "must be true or false"
		}
		problems = append(problems, Problem{Origin: field.Tag.Get("env"), Message: message})
	}
	return over, problems
}
