// The connection, its stubs and one way to call them.
import {
  type CallOptions,
  type ClientUnaryCall,
  Metadata,
  type ServiceError,
  credentials,
} from "@grpc/grpc-js";

import { BlobServiceClient } from "../gen/mip/v1/blob_service.js";
import { CubeServiceClient } from "../gen/mip/v1/cube_service.js";
import { MemoryServiceClient } from "../gen/mip/v1/memory_service.js";
import { ServerServiceClient } from "../gen/mip/v1/server_service.js";

/** How long one call may take, in milliseconds. */
const CALL_MILLISECONDS = 60_000;

/** A unary method of a generated client. */
type Unary<Request, Response> = (
  request: Request,
  metadata: Metadata,
  options: Partial<CallOptions>,
  callback: (error: ServiceError | null, response: Response) => void,
) => ClientUnaryCall;

/** The stubs of one server, in plain text: MIP servers speak it on loopback. */
export class Connection {
  readonly server: ServerServiceClient;
  readonly cubes: CubeServiceClient;
  readonly memories: MemoryServiceClient;
  readonly blobs: BlobServiceClient;

  constructor(
    address: string,
    private readonly token: string,
  ) {
    const plain = credentials.createInsecure();
    this.server = new ServerServiceClient(address, plain);
    this.cubes = new CubeServiceClient(address, plain);
    this.memories = new MemoryServiceClient(address, plain);
    this.blobs = new BlobServiceClient(address, plain);
  }

  /** Returns the metadata of a call with the token. */
  metadata(): Metadata {
    const metadata = new Metadata();
    metadata.set("authorization", `Bearer ${this.token}`);
    return metadata;
  }

  /** Returns the options of a call. */
  options(): Partial<CallOptions> {
    return { deadline: Date.now() + CALL_MILLISECONDS };
  }

  /** Makes a unary call; `method` is bound to its client. */
  call<Request, Response>(
    method: Unary<Request, Response>,
    request: Request,
    metadata: Metadata = this.metadata(),
  ): Promise<Response> {
    return new Promise((resolve, reject) => {
      method(request, metadata, this.options(), (error, response) => (error ? reject(error) : resolve(response)));
    });
  }

  /** Closes the connections. */
  close(): void {
    for (const client of [this.server, this.cubes, this.memories, this.blobs]) {
      client.close();
    }
  }
}
