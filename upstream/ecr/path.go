package ecr

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
)

// Path says how this machine reaches S3, which sends the layers of ECR.
type Path struct {
	Region string // region of this machine
	// Endpoint is the id of the gateway endpoint of S3, or empty. Interface is the id of an interface
	// endpoint to which the name of S3 resolves in the VPC, or empty. Both lead only to S3 in Region.
	Endpoint, Interface string
	// Gateway is the id of the target of the default route: a NAT gateway (nat-), an internet gateway
	// (igw-) or another target. It is empty if there is no default route.
	Gateway string
	Table   string // id of the route table
	// Elsewhere says that all registries are in other regions. Endpoint and Interface are empty then.
	// The caller of FindPath sets Elsewhere and Proxy.
	Elsewhere bool
	// Proxy is the host of the proxy for the layers. If it is not empty, all other fields are empty.
	Proxy string
}

// FindPath asks the instance metadata where this machine is, and the EC2 API for its routes. The
// calls of the EC2 API need the rights ec2:DescribeRouteTables and ec2:DescribeVpcEndpoints.
// endpoint is the URL of the EC2 API; empty means the endpoint of the region.
func FindPath(ctx context.Context, cfg aws.Config, endpoint string) (p Path, err error) {
	// The request bypasses any proxy, because a proxy would get the metadata of its own machine.
	direct := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) { t.Proxy, t.DisableKeepAlives = nil, true })
	instance := imds.NewFromConfig(cfg, func(o *imds.Options) { o.HTTPClient = direct })
	about := func(path string) string {
		out, failed := instance.GetMetadata(ctx, &imds.GetMetadataInput{Path: path})
		if err != nil || failed != nil {
			if err == nil {
				err = failed
			}
			return ""
		}
		defer out.Content.Close()
		text, failed := io.ReadAll(io.LimitReader(out.Content, 1<<10))
		err = failed
		return strings.TrimSpace(string(text))
	}
	card := "network/interfaces/macs/" + about("mac") + "/"
	vpc, subnet, domain := about(card+"vpc-id"), about(card+"subnet-id"), about("services/domain")
	if p.Region = about("placement/region"); err != nil {
		return p, fmt.Errorf("instance metadata: %w", err)
	}
	api := ec2{cfg, p.Region, cmp.Or(endpoint, "https://ec2."+p.Region+"."+domain+"/")}
	table, err := api.routes(ctx, "association.subnet-id", subnet)
	if err == nil && table.ID == "" { // the subnet uses the main table of its VPC
		table, err = api.routes(ctx, "vpc-id", vpc, "association.main", "true")
	}
	if err != nil {
		return p, err
	}
	p.Table = table.ID
	for _, r := range table.Routes {
		if r.To == "0.0.0.0/0" {
			p.Gateway = cmp.Or(r.NAT, r.Gateway, r.Transit, r.Core, r.Carrier, r.Local, r.Peering, r.Interface)
		}
	}
	var found struct {
		Endpoints []struct {
			ID     string   `xml:"vpcEndpointId"`
			Tables []string `xml:"routeTableIdSet>item"` // route tables of a gateway endpoint
			Named  bool     `xml:"privateDnsEnabled"`    // the name of S3 resolves to this endpoint
		} `xml:"vpcEndpointSet>item"`
	}
	if err := api.ask(ctx, &found, "DescribeVpcEndpoints", "vpc-id", vpc, "service-name", "com.amazonaws."+p.Region+".s3", "vpc-endpoint-state", "available"); err != nil {
		return p, err
	}
	for _, e := range found.Endpoints {
		if slices.Contains(e.Tables, p.Table) {
			p.Endpoint = e.ID
		}
		if e.Named {
			p.Interface = e.ID
		}
	}
	return p, nil
}

// ec2 asks the EC2 API by its query protocol (EC2 API reference, "Query requests").
type ec2 struct {
	cfg              aws.Config
	region, endpoint string
}

// table is a route table.
type table struct {
	ID     string `xml:"routeTableId"`
	Routes []struct {
		To        string `xml:"destinationCidrBlock"`
		Gateway   string `xml:"gatewayId"`
		NAT       string `xml:"natGatewayId"`
		Transit   string `xml:"transitGatewayId"`
		Core      string `xml:"coreNetworkArn"`
		Carrier   string `xml:"carrierGatewayId"`
		Local     string `xml:"localGatewayId"`
		Peering   string `xml:"vpcPeeringConnectionId"`
		Interface string `xml:"networkInterfaceId"` // network interface of an instance that does NAT
	} `xml:"routeSet>item"`
}

// routes returns the first route table that matches the filters, or an empty table if none does.
func (e ec2) routes(ctx context.Context, filters ...string) (table, error) {
	var found struct {
		Tables []table `xml:"routeTableSet>item"`
	}
	if err := e.ask(ctx, &found, "DescribeRouteTables", filters...); err != nil || len(found.Tables) == 0 {
		return table{}, err
	}
	return found.Tables[0], nil
}

// ask calls an action, and decodes the answer into out. filters has the name and the value of each
// filter in turn.
func (e ec2) ask(ctx context.Context, out any, action string, filters ...string) error {
	form := url.Values{"Action": {action}, "Version": {"2016-11-15"}}
	for i := 0; i < len(filters); i += 2 {
		form.Set(fmt.Sprintf("Filter.%d.Name", i/2+1), filters[i])
		form.Set(fmt.Sprintf("Filter.%d.Value.1", i/2+1), filters[i+1])
	}
	text, resp, err := signed(ctx, e.cfg, "ec2", e.region, e.endpoint, []byte(form.Encode()), http.Header{"Content-Type": {"application/x-www-form-urlencoded; charset=utf-8"}})
	if err != nil {
		return fmt.Errorf("%s: %w", action, err)
	}
	if resp.StatusCode != http.StatusOK {
		var refused struct {
			Code string `xml:"Errors>Error>Code"`
		}
		if xml.Unmarshal(text, &refused) != nil || refused.Code == "" {
			return fmt.Errorf("%s: the EC2 API answers %s", action, resp.Status)
		}
		return fmt.Errorf("%s: %w", action, errors.New(refused.Code))
	}
	return xml.Unmarshal(text, out)
}

// signed posts a request to a service of AWS, with a signature, and returns the answer and its
// body. It is for services that dray rarely calls: the SDK's clients for them would add megabytes
// to the program.
func signed(ctx context.Context, cfg aws.Config, service, region, endpoint string, body []byte, header http.Header) ([]byte, *http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	req.Header = header
	who, err := cfg.Credentials.Retrieve(ctx)
	if err != nil {
		return nil, nil, err
	}
	sum := sha256.Sum256(body)
	if err := v4.NewSigner().SignHTTP(ctx, who, req, hex.EncodeToString(sum[:]), service, region, time.Now()); err != nil {
		return nil, nil, err
	}
	conn := &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}
	resp, err := conn.RoundTrip(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	return text, resp, err
}
