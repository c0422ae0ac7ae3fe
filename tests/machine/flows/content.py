"""Flow b: spam, viruses and programs are refused at the end of DATA, while the sender still listens.

GTUBE (SpamAssassin's test), EICAR as an attachment, EICAR inside a zip archive, and a program inside one. The sender's
triplet has passed greylisting in flow a. None of them may reach the mailbox.
"""

import clients
import messages


def refused(world, title, message, check):
    def wanted(event):
        return event["event"] == "refused" and event.get("check") == check

    before = len(list(filter(wanted, world.events("gateway"))))
    with world.outside() as client:
        outcome = clients.send(client, messages.OUTSIDER, messages.ALICE, message)
    assert outcome.stage == "data" and outcome.code // 100 == 5, f"{title} was not refused: {outcome}"
    assert outcome.text.startswith("5.7."), f"{title}: no policy status code in: {outcome}"
    world.say(f"{title}: {outcome}")
    world.say(world.refusal(f"b. {title}", "gateway", wanted, before + 1))


def run(world):
    sender, alice = messages.OUTSIDER, messages.ALICE
    before = world.count_mail()

    spam = messages.build(sender, alice, "Cheap offer", messages.gtube())
    refused(world, "GTUBE", messages.signed(spam, world.private_key), "spam")

    plain = messages.build(sender, alice, "Your invoice", "See the attachment.",
                           [("invoice.doc", messages.eicar())])
    refused(world, "EICAR attachment", messages.signed(plain, world.private_key), "virus")

    packed = messages.build(sender, alice, "Your invoice", "See the archive.",
                            [("invoice.zip", messages.zipped("invoice.doc", messages.eicar()))])
    refused(world, "EICAR in a zip", messages.signed(packed, world.private_key), "virus")

    program = messages.build(sender, alice, "Your invoice", "See the archive.",
                             [("invoice.zip", messages.zipped("invoice.pdf.exe", b"no virus"))])
    refused(world, "a program in a zip", messages.signed(program, world.private_key), "content")

    # The same mail without the test strings passes, or the refusals would prove nothing.
    clean = messages.build(sender, alice, "Your invoice", "See the archive.",
                           [("invoice.zip", messages.zipped("invoice.doc", b"no virus"))])
    with world.outside() as client:
        outcome = clients.send(client, sender, alice, messages.signed(clean, world.private_key))
    assert outcome.accepted, f"the clean message was refused: {outcome}"
    world.wait_mail(lambda octets: octets.endswith(clean))
    after = world.count_mail()
    assert after == before + 1, f"{after - before} messages reached the mailbox, not only the clean one"
