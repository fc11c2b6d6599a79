// The steps that stream.
import { createHash, randomBytes } from "node:crypto";

import {
  ReadBlobRequest,
  type ReadBlobResponse,
  type WriteBlobRequest,
  type WriteBlobResponse,
} from "../gen/mip/v1/blob_service.js";
import { WatchCubeRequest, type WatchCubeResponse } from "../gen/mip/v1/cube_service.js";
import { equal, present } from "./checks.js";
import type { Connection } from "./client.js";

/** The most bytes of a data frame (MIP-STRM-021, MIP-STRM-030). */
const FRAME_BYTES = 1 << 20;
/** More than one frame may hold, and no whole number of frames. */
const BLOB_BYTES = 5 << 19;

/** Reads the commits 1 to `last`, whole and in order, and then ends the stream. */
export async function watch(mip: Connection, cube: string, last: bigint): Promise<void> {
  const request = WatchCubeRequest.fromPartial({ name: cube, startRevision: 1n });
  const stream = mip.cubes.watchCube(request, mip.metadata(), mip.options());
  let whole = 0n;
  let begun = 0n;
  try {
    for await (const received of stream as AsyncIterable<WatchCubeResponse>) {
      const frame = present("the frame", received.frame);
      if (frame.$case === "commit" && begun === 0n) {
        begun = frame.value.revision;
        equal("the commit's revision", begun, whole + 1n);
        equal("the commit's name", frame.value.name, `${cube}/commits/${begun}`);
      } else if (frame.$case === "end" && begun !== 0n) {
        equal("the end's revision", frame.value.revision, begun);
        [whole, begun] = [begun, 0n];
        if (whole === last) {
          return;
        }
      } else if (!(frame.$case === "changes" && begun !== 0n) && !(frame.$case === "heartbeat" && begun === 0n)) {
        throw new Error(`a frame \`${frame.$case}\` comes after ${whole} whole commits`);
      }
    }
  } finally {
    // Ending it is answered with an error, CANCELLED, that nobody waits for.
    stream.on("error", () => undefined);
    stream.cancel();
  }
  throw new Error(`the stream ended after ${whole} whole commits`);
}

/** Writes random bytes and reads them back. */
export async function blob(mip: Connection, cube: string): Promise<void> {
  const content = randomBytes(BLOB_BYTES);
  const digest = digestOf(content);
  const written = await write(mip, cube, content, digest);
  equal("digest", written.digest, digest);
  equal("size", written.size, BigInt(content.length));
  const read = await readBack(mip, cube, digest);
  equal("the digest of what was read", digestOf(read), digest);
}

function digestOf(content: Buffer): string {
  return `sha256:${createHash("sha256").update(content).digest("hex")}`;
}

function* frames(cube: string, content: Buffer, digest: string): Generator<WriteBlobRequest> {
  const header = { parent: cube, digest, size: BigInt(content.length), offset: 0n };
  yield { frame: { $case: "header", value: header } };
  for (let offset = 0; offset < content.length; offset += FRAME_BYTES) {
    const data = content.subarray(offset, offset + FRAME_BYTES);
    yield { frame: { $case: "data", value: { offset: BigInt(offset), data } } };
  }
  yield { frame: { $case: "finish", value: true } };
}

function write(mip: Connection, cube: string, content: Buffer, digest: string): Promise<WriteBlobResponse> {
  return new Promise((resolve, reject) => {
    const stream = mip.blobs.writeBlob(mip.metadata(), mip.options(), (error, response) =>
      error ? reject(error) : resolve(response),
    );
    // The few frames wait in memory where the server takes them slowly.
    for (const frame of frames(cube, content, digest)) {
      stream.write(frame);
    }
    stream.end();
  });
}

async function readBack(mip: Connection, cube: string, digest: string): Promise<Buffer> {
  const request = ReadBlobRequest.fromPartial({ parent: cube, digest });
  const stream = mip.blobs.readBlob(request, mip.metadata(), mip.options());
  let size: bigint | undefined;
  let content = Buffer.alloc(0);
  for await (const received of stream as AsyncIterable<ReadBlobResponse>) {
    const frame = present("the frame", received.frame);
    if (frame.$case === "header" && size === undefined) {
      size = frame.value.size;
      equal("header.digest", frame.value.digest, digest);
      equal("header.offset", frame.value.offset, 0n);
    } else if (frame.$case === "data" && size !== undefined && frame.value.data.length <= FRAME_BYTES) {
      equal("the frame's offset", frame.value.offset, BigInt(content.length));
      content = Buffer.concat([content, frame.value.data]);
    } else {
      throw new Error(`a frame \`${frame.$case}\` comes after ${content.length} bytes`);
    }
  }
  equal("header.size", size, BigInt(content.length));
  return content;
}
