// What the steps check with.
import type { ServiceError } from "@grpc/grpc-js";

import { ErrorInfo, Status } from "../gen/google/rpc/status.js";
import type { Memory } from "../gen/mip/v1/memory.js";

/** Fails with what differs. */
export function equal<T extends string | number | bigint | boolean>(what: string, got: T | undefined, wanted: T): void {
  if (got !== wanted) {
    throw new Error(`${what} is ${show(got)}, not ${show(wanted)}`);
  }
}

function show(value: string | number | bigint | boolean | undefined): string {
  return typeof value === "string" ? JSON.stringify(value) : String(value);
}

/** Returns a value that a response must hold. */
export function present<T>(what: string, value: T | undefined | null | ""): T {
  if (value === undefined || value === null || value === "") {
    throw new Error(`${what} is missing`);
  }
  return value;
}

/** Returns the text of a plaintext memory; undefined for any other. */
export function textOf(memory: Memory | undefined): string | undefined {
  return memory?.payload?.$case === "plaintext" ? memory.payload.value.text : undefined;
}

/** Returns the memories' names, separated by spaces. */
export function names(memories: Memory[]): string {
  return memories.map((memory) => memory.name).join(" ");
}

/** Waits for a call that must fail with a code and with a reason in google.rpc.ErrorInfo. */
export async function refused(call: Promise<unknown>, code: number, reason: string): Promise<void> {
  const error = await call.then(
    () => undefined,
    (thrown: ServiceError) => thrown,
  );
  if (error === undefined) {
    throw new Error("the call was not refused");
  }
  const [sealed] = error.metadata.get("grpc-status-details-bin");
  if (!Buffer.isBuffer(sealed)) {
    throw new Error(`no grpc-status-details-bin with: ${error.message}`);
  }
  const packed = Status.decode(sealed).details.find((detail) => detail.typeUrl.endsWith("/google.rpc.ErrorInfo"));
  const info = ErrorInfo.decode(present("google.rpc.ErrorInfo", packed).value);
  equal("the code", error.code, code);
  equal("the domain", info.domain, "mip");
  equal("the reason", info.reason, reason);
}
