// Package zone finds the zone of the machine that dray runs on.
package zone

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
)

// patience bounds the time of Find. Networks without a metadata service often drop packets to the
// address of this service, so that Find would wait without an error. Tests on slow machines change
// patience.
var patience = 5 * time.Second

const (
	// maxAnswer bounds the answer about a task of Amazon ECS, in bytes. The answer describes all
	// containers of the task.
	maxAnswer = 1 << 20
	// maxZone bounds the name of a zone, in bytes.
	maxZone = 64
	// taskVariable has the address of the metadata of a task of Amazon ECS ("Amazon ECS task metadata
	// endpoint version 4", Amazon ECS Developer Guide).
	taskVariable = "ECS_CONTAINER_METADATA_URI_V4"
)

// Find returns the name of the zone. In a container of Amazon ECS, it is the name of the task's
// Availability Zone, such as "us-east-1a". Elsewhere, it is the ID of the zone of the Amazon EC2
// instance, such as "use1-az1". If no zone is found, the error says why. Outside Amazon ECS and
// Amazon EC2, such an error is expected. Find asks an instance only by IMDSv2. It does not ask the
// instance if AWS_EC2_METADATA_DISABLED is true.
func Find(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	// The client uses no proxy, because a proxy would answer for its own machine. Without Freeze, the
	// AWS SDK would wait only 250 ms for a connection and 500 ms for an answer. A machine that has
	// just started may need longer.
	client := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) { t.Proxy, t.DisableKeepAlives = nil, true }).Freeze()
	ask := ofInstance
	if os.Getenv(taskVariable) != "" {
		ask = ofTask
	}
	name, err := ask(ctx, client)
	if err == nil && !valid(name) {
		err = fmt.Errorf("%.100q is not the name of a zone", name)
	}
	if err != nil {
		return "", err
	}
	return name, nil
}

// ofTask returns the zone of a task of Amazon ECS.
func ofTask(ctx context.Context, client aws.HTTPClient) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(os.Getenv(taskVariable), "/")+"/task", nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("the metadata of the task: %s", resp.Status)
	}
	var task struct{ AvailabilityZone string }
	err = json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&task)
	return task.AvailabilityZone, err
}

// ofInstance returns the ID of the zone of an instance of Amazon EC2. Names of zones differ between
// accounts, and IDs do not.
func ofInstance(ctx context.Context, client aws.HTTPClient) (string, error) {
	answer, err := imds.New(imds.Options{HTTPClient: client, EnableFallback: aws.FalseTernary}).
		GetMetadata(ctx, &imds.GetMetadataInput{Path: "placement/availability-zone-id"})
	if err != nil {
		return "", err
	}
	defer answer.Content.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Content, maxZone+1))
	return strings.TrimSpace(string(text)), err
}

// valid reports whether a name is fit for the header in which members tell each other their zones.
func valid(name string) bool {
	return name != "" && len(name) <= maxZone && !strings.ContainsFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-')
	})
}
