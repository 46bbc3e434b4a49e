// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ITaskBoard} from "../src/ITaskBoard.sol";
import {vm} from "./Cheats.sol";
import {Board, KEPT} from "./Board.sol";

/// @notice What whole transactions cost, as their receipts say it: every call runs as a transaction of its own
/// (`isolate`). The figures are written to `gas/` and compared with what is committed there.
contract GasTest is Board {
    function setUp() public override {
        super.setUp();
        submitFree(); // the first task of all pays for a sequence that was 0
        publish(1, OK); // and the first result for a new guard word
    }

    function test_submit_of_a_free_task_stays_below_35000() public {
        submitFree();
        measure("submit", 35_000);
    }

    function test_submit_of_a_task_with_a_fee() public {
        submit(1 ether, terms(0, 0, 0));
        measure("submit_with_fee", 60_000);
    }

    function test_submit_of_100_stays_below_10000_each() public {
        ITaskBoard.Request[] memory batch = new ITaskBoard.Request[](100);
        for (uint256 i; i < batch.length; ++i) {
            batch[i] = ITaskBoard.Request(terms(0, 0, 0), keccak256("module"), keccak256("input"), "fib", 0, "");
        }
        vm.prank(REQUESTER);
        board.submitBatch(batch);
        measure("submit_batch_of_100", 1_000_000);
    }

    function test_publish_of_a_digest_stays_below_35000() public {
        uint64 id = submitFree();
        publish(id, OK);
        measure("publish", 35_000);
    }

    function test_publish_by_another_coordinator_of_the_domain() public {
        address second = address(0xC1);
        vm.prank(OWNER);
        board.setCoordinator(0, second, true);
        uint64 id = submitFree();
        vm.roll(anchorNumber + 1);
        vm.prank(second);
        board.publish(answer(id, OK), DIGEST, anchorNumber, anchorHash);
        measure("publish_by_another_coordinator", 35_000);
    }

    function test_publish_of_a_task_with_a_fee() public {
        uint64 id = submit(1 ether, terms(0, 0, 0));
        submit(1 ether, terms(0, 0, 0));
        publish(id, OK);
        publish(KEPT | 3, OK);
        measure("publish_with_fee", 50_000);
    }

    function test_publish_of_a_document() public {
        uint64 id = submitFree();
        publishDocument(id, OK, '{"status":"ok","value":144}');
        measure("publish_document", 36_500);
    }

    function test_a_batch_of_100_digests_stays_below_4000_each() public {
        uint64[] memory ids = new uint64[](100);
        for (uint256 i; i < ids.length; ++i) {
            ids[i] = submitFree();
        }
        publishDigests(digests(ids, OK));
        measure("publish_digests_of_100", 400_000);
    }

    /// What it costs to tell ten requesters of a rejection, in a guard word that is new.
    function test_a_batch_of_10_rejections_in_a_new_word() public {
        for (uint256 i; i < 254; ++i) {
            submitFree();
        }
        uint64[] memory ids = new uint64[](10);
        for (uint256 i; i < ids.length; ++i) {
            ids[i] = submitFree();
        }
        vm.assertEq(ids[0] >> 8, 1, "a new word");
        publishDigests(digests(ids, REJECTED));
        measure("publish_10_rejections_in_a_new_word", 90_000);
    }

    function test_a_batch_of_100_documents() public {
        ITaskBoard.Result[] memory results = new ITaskBoard.Result[](100);
        for (uint256 i; i < results.length; ++i) {
            results[i] = ITaskBoard.Result(answer(submitFree(), OK), '{"status":"ok","value":144}');
        }
        publishBatch(results);
        measure("publish_batch_of_100", 700_000);
    }

    function measure(string memory name, uint256 goal) private {
        vm.assertLe(vm.snapshotGasLastCall("transactions", name), goal, name);
    }
}
