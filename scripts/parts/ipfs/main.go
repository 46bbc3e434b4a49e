// Command ipfs-gateway is a content store in memory behind the gateway and importer code of Kubo (boxo), so that
// tests meet the HTTP behaviour of a real node without running one:
//
//	GET  /ipfs/CID               files, ?format=raw and ?format=car
//	POST /api/v0/add             cid-version, raw-leaves, chunker, max-file-links, trickle and pin as Kubo reads them
//	POST /api/v0/block/put       cid-codec, mhtype and pin
//	POST /api/v0/pin/{ls,rm}
//	POST /api/v0/version
//
// Like Kubo it sends whoever names it localhost to a subdomain for each CID. The bound address is the only line on
// stdout.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/exchange/offline"
	"github.com/ipfs/boxo/gateway"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/sync"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address to listen on; port 0 takes a free one")
	preload := flag.String("preload", "", "folder whose files are added at the start, in both CID versions")
	defaults := flag.String("import", "", "what add does unless it is told: options of add as a query, such as chunker=size-1048576&trickle=true")
	untilEOF := flag.Bool("until-eof", false, "end when stdin is closed, so that the starter never leaves it behind")
	flag.Parse()
	if flag.NArg() > 0 {
		log.Fatalf("unexpected argument %q", flag.Arg(0))
	}
	if err := run(*listen, *preload, *defaults, *untilEOF); err != nil {
		log.Fatal(err)
	}
}

func run(listen, preload, defaults string, untilEOF bool) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()

	blocks := blockstore.NewBlockstore(sync.MutexWrap(datastore.NewMapDatastore()))
	service := blockservice.New(blocks, offline.Exchange(blocks))
	backend, err := gateway.NewBlocksBackend(service)
	if err != nil {
		return fmt.Errorf("making the gateway: %w", err)
	}
	imports, err := url.ParseQuery(defaults)
	if err != nil {
		return fmt.Errorf("reading %q: %w", defaults, err)
	}
	api := &rpc{blocks: blocks, dag: merkledag.NewDAGService(service), defaults: imports, pins: map[string]bool{}}
	if preload != "" {
		if err := addFolder(ctx, api, preload); err != nil {
			return fmt.Errorf("preloading %s: %w", preload, err)
		}
	}

	mux := http.NewServeMux()
	config := gateway.Config{
		DeserializedResponses: true,
		PublicGateways: map[string]*gateway.PublicGateway{
			"localhost": {Paths: []string{"/ipfs", "/ipns"}, UseSubdomains: true, DeserializedResponses: true},
		},
	}
	mux.Handle("/ipfs/", gateway.NewHandler(config, backend))
	api.register(mux)

	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())

	if untilEOF {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			stop()
		}()
	}
	server := &http.Server{Handler: gateway.NewHostnameHandler(config, backend, mux), ReadHeaderTimeout: 10 * time.Second}
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// addFolder imports every regular file below folder as CIDv0 and as CIDv1.
func addFolder(ctx context.Context, api *rpc, folder string) error {
	return filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		for version := range 2 {
			file, err := os.Open(path)
			if err != nil {
				return err
			}
			how := layout{cidVersion: version, rawLeaves: version == 1, maxLinks: helpers.DefaultLinksPerBlock}
			root, err := api.importFile(ctx, file, how)
			_ = file.Close()
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			log.Printf("%s %s", root.Cid(), path)
		}
		return nil
	})
}
