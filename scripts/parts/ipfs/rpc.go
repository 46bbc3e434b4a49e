package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/ipfs/boxo/blockstore"
	chunk "github.com/ipfs/boxo/chunker"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	"github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	"github.com/ipfs/boxo/ipld/unixfs/importer/trickle"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	mh "github.com/multiformats/go-multihash"
)

// maxBlockBytes is Kubo's limit for a block put without allow-big-block.
const maxBlockBytes = 2 << 20

// rpc is the part of Kubo's RPC that adds content. Nothing is ever collected here; pins are only remembered.
type rpc struct {
	blocks   blockstore.Blockstore
	dag      ipld.DAGService
	defaults url.Values

	lock sync.Mutex
	pins map[string]bool
}

// layout says how a file becomes blocks.
type layout struct {
	cidVersion int
	rawLeaves  bool
	chunker    string
	maxLinks   int
	trickle    bool
}

func (r *rpc) register(mux *http.ServeMux) {
	mux.HandleFunc("/api/v0/add", post(r.add))
	mux.HandleFunc("/api/v0/block/put", post(r.blockPut))
	mux.HandleFunc("/api/v0/pin/ls", post(r.pinLs))
	mux.HandleFunc("/api/v0/pin/rm", post(r.pinRm))
	mux.HandleFunc("/api/v0/version", post(func(w http.ResponseWriter, _ *http.Request) error {
		return answer(w, map[string]string{"Version": "0.38.2", "System": "boxo"})
	}))
}

// post answers an error as Kubo does: 405 for another method, otherwise 500 with a message and code.
func post(serve func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, request *http.Request) {
		if request.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			http.Error(w, "405 - Method Not Allowed", http.StatusMethodNotAllowed)
			return
		}
		if err := serve(w, request); err != nil {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusInternalServerError)
			_ = json.NewEncoder(w).Encode(map[string]any{"Message": err.Error(), "Code": 0, "Type": "error"})
		}
	}
}

func answer(w http.ResponseWriter, value any) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(value)
}

func (r *rpc) add(w http.ResponseWriter, request *http.Request) error {
	query := request.URL.Query()
	for name, values := range r.defaults {
		if !query.Has(name) {
			query[name] = values
		}
	}
	how, err := parseLayout(query)
	if err != nil {
		return err
	}
	pin, err := flagOf(query, "pin", true)
	if err != nil {
		return err
	}
	parts, err := request.MultipartReader()
	if err != nil {
		return err
	}
	var added []map[string]string
	for {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		root, err := r.importFile(request.Context(), part, how)
		if err != nil {
			return err
		}
		if pin {
			r.pin(root.Cid(), true)
		}
		size, err := root.Size()
		if err != nil {
			return err
		}
		name := part.FileName()
		if name == "" {
			name = root.Cid().String()
		}
		added = append(added, map[string]string{
			"Name": name, "Hash": root.Cid().String(), "Size": strconv.FormatUint(size, 10),
		})
	}
	if len(added) == 0 {
		return errors.New("file argument 'path' is required")
	}
	for _, one := range added {
		if err := answer(w, one); err != nil {
			return err
		}
	}
	return nil
}

func (r *rpc) importFile(ctx context.Context, file io.Reader, how layout) (ipld.Node, error) {
	prefix, err := merkledag.PrefixForCidVersion(how.cidVersion)
	if err != nil {
		return nil, err
	}
	splitter, err := chunk.FromString(file, how.chunker)
	if err != nil {
		return nil, err
	}
	params := helpers.DagBuilderParams{
		Dagserv:    r.dag,
		Maxlinks:   how.maxLinks,
		RawLeaves:  how.rawLeaves,
		CidBuilder: prefix,
	}
	builder, err := params.New(splitter)
	if err != nil {
		return nil, err
	}
	lay := balanced.Layout
	if how.trickle {
		lay = trickle.Layout
	}
	root, err := lay(builder)
	if err != nil {
		return nil, err
	}
	return root, ctx.Err()
}

func (r *rpc) pin(id cid.Cid, pinned bool) bool {
	r.lock.Lock()
	defer r.lock.Unlock()
	was := r.pins[id.String()]
	r.pins[id.String()] = pinned
	return was
}

func (r *rpc) pinLs(w http.ResponseWriter, _ *http.Request) error {
	r.lock.Lock()
	defer r.lock.Unlock()
	keys := map[string]map[string]string{}
	for id, pinned := range r.pins {
		if pinned {
			keys[id] = map[string]string{"Type": "recursive"}
		}
	}
	return answer(w, map[string]any{"Keys": keys})
}

func (r *rpc) pinRm(w http.ResponseWriter, request *http.Request) error {
	id, err := cid.Decode(request.URL.Query().Get("arg"))
	if err != nil {
		return err
	}
	if !r.pin(id, false) {
		return errors.New("not pinned or pinned indirectly")
	}
	return answer(w, map[string]any{"Pins": []string{id.String()}})
}

func (r *rpc) blockPut(w http.ResponseWriter, request *http.Request) error {
	query := request.URL.Query()
	if _, err := flagOf(query, "pin", false); err != nil {
		return err
	}
	var codec uint64
	switch name := valueOf(query, "cid-codec", "raw"); name {
	case "raw":
		codec = cid.Raw
	case "dag-pb":
		codec = cid.DagProtobuf
	default:
		return fmt.Errorf("unrecognized IPLD codec: %s", name)
	}
	hash, ok := mh.Names[valueOf(query, "mhtype", "sha2-256")]
	if !ok {
		return fmt.Errorf("unrecognized hash function: %s", query.Get("mhtype"))
	}
	parts, err := request.MultipartReader()
	if err != nil {
		return err
	}
	part, err := parts.NextPart()
	if err != nil {
		return errors.New("file argument 'data' is required")
	}
	data, err := io.ReadAll(io.LimitReader(part, maxBlockBytes+1))
	if err != nil {
		return err
	}
	if len(data) > maxBlockBytes {
		return errors.New("produced block is over 2MiB: big blocks can't be exchanged with other peers")
	}
	id, err := cid.Prefix{Version: 1, Codec: codec, MhType: hash, MhLength: -1}.Sum(data)
	if err != nil {
		return err
	}
	block, err := blocks.NewBlockWithCid(data, id)
	if err != nil {
		return err
	}
	if err := r.blocks.Put(request.Context(), block); err != nil {
		return err
	}
	return answer(w, map[string]any{"Key": id.String(), "Size": len(data)})
}

// parseLayout reads the options of add: version 1 brings raw leaves unless they are refused by name.
func parseLayout(query url.Values) (layout, error) {
	version, err := strconv.Atoi(valueOf(query, "cid-version", "0"))
	if err != nil || version < 0 || version > 1 {
		return layout{}, fmt.Errorf("unknown CID version %q", query.Get("cid-version"))
	}
	raw, err := flagOf(query, "raw-leaves", version == 1)
	if err != nil {
		return layout{}, err
	}
	if hash := valueOf(query, "hash", "sha2-256"); hash != "sha2-256" {
		return layout{}, fmt.Errorf("unrecognized hash function: %q", strings.ToLower(hash))
	}
	for _, name := range []string{"quieter", "progress", "inline", "nocopy", "only-hash", "wrap-with-directory", "preserve-mode", "preserve-mtime"} {
		if _, err := flagOf(query, name, true); err != nil {
			return layout{}, err
		}
	}
	trickle, err := flagOf(query, "trickle", false)
	if err != nil {
		return layout{}, err
	}
	links, err := strconv.Atoi(valueOf(query, "max-file-links", strconv.Itoa(helpers.DefaultLinksPerBlock)))
	if err != nil {
		return layout{}, fmt.Errorf("option max-file-links: %w", err)
	}
	return layout{cidVersion: version, rawLeaves: raw, chunker: query.Get("chunker"), maxLinks: links, trickle: trickle}, nil
}

func valueOf(query url.Values, name, fallback string) string {
	if value := query.Get(name); value != "" {
		return value
	}
	return fallback
}

func flagOf(query url.Values, name string, fallback bool) (bool, error) {
	value := query.Get(name)
	if value == "" {
		return fallback, nil
	}
	flag, err := strconv.ParseBool(value)
	if err != nil {
		return false, fmt.Errorf("option %s: %q is not a boolean", name, value)
	}
	return flag, nil
}
